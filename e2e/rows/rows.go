// SPDX-License-Identifier: Apache-2.0

package main

// proof is a test that shows something of a row.
type proof struct {
	// pkg is the package's path in this tree, test the name of the test in it.
	pkg, test string
	// how far it goes: the component ran, or was applied to a real API server only.
	how string
}

const (
	ran     = "ran"
	applied = "applied"
	checked = "checked"
)

// row is one part of the reference platform.
type row struct {
	part   string
	proofs []proof
	// lacks says what of the part nothing here proves; empty if nothing is missing.
	lacks string
}

const (
	complete  = "e2e/complete"
	manifests = "e2e/manifests"
	network   = "e2e/network"
	platform  = "e2e/platform"
	faults    = "e2e/faults"
	upstream  = "e2e/upstream"
)

// everyObject shows that a real API server takes what the manifests hold.
var everyObject = proof{manifests, "TestTheAPIServerTakesEveryObjectOfEveryKustomization", applied}

// rows is the table of docs/platform.md.
var rows = []row{
	{"Access", []proof{{upstream, "TestTheGatewayLeadsToTheCatalogInTLSBothWays", ran}, everyObject}, "Traefik in Envoy Gateway's place; no Ingress controller ran"},
	{"API", []proof{
		{complete, "TestThreeCatalogsShareOneDatabaseAndOneCache", ran},
		{platform, "TestTheCatalogAcceptsWritesOnlyWithAWritersToken", ran},
	}, "with small requests: one machine has not three times 2 CPUs and 4 GiB"},
	{"Redis", []proof{{complete, "TestRedisHasTwoReplicasThatFollow", ran}}, "Debian's 7.0 in place of the official image; no failover, it is a cache"},
	{"PostgreSQL", []proof{
		{complete, "TestPostgresHasTwoReplicasThatFollow", ran},
		{upstream, "TestTheOperatorMakesADatabaseOfOurCluster", ran},
		everyObject,
	}, "Debian's 15 in place of the official image; CloudNativePG's pods are on a simulated node, its failover and backup are not shown"},
	{"GPU pools", []proof{
		{upstream, "TestKarpenterProvisionsWhatABenchmarkNamesByAnnotation", ran},
		everyObject,
	}, "Karpenter's cloud is simulated; Cluster Autoscaler did not run"},
	{"Benchmark jobs", []proof{
		{platform, "TestAnInterruptedBenchmarkIsFinishedElsewhereAndNothingIsLost", ran},
		{platform, "TestAnInterruptedWorkflowFinishesAndMeasuresEachPointOnce", ran},
		everyObject,
	}, "the GPUs are simulated"},
	{"Scheduler, agent", []proof{
		{complete, "TestSchedulersAreUpgradedAndRolledBackWhilePodsArePlaced", ran},
		{complete, "TestANoticeInTheMiddleOfTheAgentsUpgradeIsActedOn", ran},
	}, ""},
	{"Argo CD, Argo Workflows", []proof{
		{platform, "TestAnInterruptedWorkflowFinishesAndMeasuresEachPointOnce", ran},
		{platform, "TestWorkflowsThatAreSomebodyElsesBusinessAreLeftAsTheyAre", ran},
		everyObject,
	}, "no Argo CD ran; of Workflows not the user interface"},
	{"Monitoring", []proof{
		{"pkg/scheduling", "TestAlertRulesAreWellFormedAndPassTheirOwnTests", checked},
		{complete, "TestEveryAlertIsRaisedByItsCauseAndNoticedBySlackAndPagerDuty", ran},
		{manifests, "TestTheOperatorsRulesAreThoseThatPromtoolTests", checked},
	}, "Slack and PagerDuty are played by the test; Grafana did not run"},
	{"GPU Operator", []proof{everyObject}, "it did not run"},
	{"Network policies", []proof{{network, "TestPodsConnectToWhomThePoliciesNameAndToNobodyElse", ran}}, "with kube-router; other network plugins may differ"},
	{"Pod Security", []proof{
		{manifests, "TestEveryWorkloadIsAdmittedInItsNamespace", ran},
		{manifests, "TestAPodThatViolatesItsNamespacesLevelIsRefused", ran},
	}, ""},
	{"RBAC", []proof{
		{manifests, "TestEveryAccountMayDoItsWorkAndNothingElse", ran},
		{platform, "TestAnAgentMayWriteToItsOwnNodeOnly", ran},
	}, ""},
	{"Autoscaling", []proof{{complete, "TestTheCatalogGrowsWithItsLoadAndShrinksAfterIt", ran}, everyObject}, "Redis' and Prometheus' autoscalers, VPA and KEDA are applied only"},
	{"Spot management", []proof{
		{platform, "TestAnInterruptedBenchmarkIsFinishedElsewhereAndNothingIsLost", ran},
		{faults, "TestTwoOfThreeNodesAreTakenAtOnce", ran},
		{upstream, "TestKarpenterProvisionsWhatABenchmarkNamesByAnnotation", ran},
	}, "provisioning and saving are shown in turn: Karpenter's nodes are simulated, those that run pods are there already"},
	{"Savings", []proof{{platform, "TestAnInterruptedBenchmarkIsFinishedElsewhereAndNothingIsLost", ran}}, "at list prices of a file, not of a bill"},
}

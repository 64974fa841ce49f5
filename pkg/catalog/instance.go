// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"time"
)

// withdrawnAfter is how long a machine may be seen after a notice of the cloud
// that takes it back: longer, and the notice was withdrawn. The longest notice of
// a cloud (Azure's Terminate) is 15 minutes.
const withdrawnAfter = 20 * time.Minute

// Instance is the life of one machine of the cluster: from its start, through
// what the cloud announced, to its last sign. How long machines of a pool live is the
// evidence that the risk of an interruption is learned from.
type Instance struct {
	UID          string `json:"uid,omitempty" readOnly:"true" doc:"UID of the Node: a machine that comes back is another one"`
	Node         string `json:"node,omitempty" maxLength:"253" doc:"Name of the Node"`
	Provider     string `json:"provider,omitempty" maxLength:"64" doc:"Cloud of the machine" example:"aws"`
	Region       string `json:"region,omitempty" maxLength:"128"`
	Zone         string `json:"zone,omitempty" maxLength:"128"`
	InstanceType string `json:"instanceType,omitempty" maxLength:"128" example:"p5.48xlarge"`
	CapacityType string `json:"capacityType,omitempty" enum:"spot,on-demand" doc:"How the machine was bought"`

	StartedAt   time.Time `json:"startedAt,omitzero" doc:"When the machine joined the cluster"`
	SeenAt      time.Time `json:"seenAt,omitzero" doc:"Last time that it was known to run"`
	RebalanceAt time.Time `json:"rebalanceAt,omitzero" doc:"When the cloud said that its risk is raised; absent if it did not"`
	NoticeAt    time.Time `json:"noticeAt,omitzero" doc:"When the cloud announced to take it back; absent if it did not. Of a launch that the cloud refused for lack of capacity, the same as startedAt"`
}

// Validate says what is wrong with the instance.
func (i Instance) Validate() error {
	return errors.Join(validCapacity(i.CapacityType), inOrder("startedAt", i.StartedAt, "seenAt", i.SeenAt), inOrder("startedAt", i.StartedAt, "noticeAt", i.NoticeAt))
}

// Merge is the instance after an update: fields that the update does not have
// keep their value, the start is the earliest told and the last sight the latest,
// whatever the order in which updates arrive. The first notice stands.
func (i Instance) Merge(update Instance) Instance {
	set(&i.Node, update.Node, false)
	set(&i.Provider, update.Provider, false)
	set(&i.Region, update.Region, false)
	set(&i.Zone, update.Zone, false)
	set(&i.InstanceType, update.InstanceType, false)
	set(&i.CapacityType, update.CapacityType, false)
	i.StartedAt = earlier(i.StartedAt, update.StartedAt)
	if update.SeenAt.After(i.SeenAt) {
		i.SeenAt = update.SeenAt
	}
	i.RebalanceAt = earlier(i.RebalanceAt, update.RebalanceAt)
	i.NoticeAt = earlier(i.NoticeAt, update.NoticeAt)
	return i
}

// Interrupted is when the cloud took the machine back, as far as is known; ok is
// false when it did not, or withdrew its notice.
func (i Instance) Interrupted() (at time.Time, ok bool) {
	if i.NoticeAt.IsZero() || i.SeenAt.Sub(i.NoticeAt) > withdrawnAfter {
		return time.Time{}, false
	}
	return i.NoticeAt, true
}

// LaunchRefused says that the machine never ran: the cloud had no capacity for it.
func (i Instance) LaunchRefused() bool {
	return !i.StartedAt.IsZero() && i.NoticeAt.Equal(i.StartedAt) && !i.SeenAt.After(i.StartedAt)
}

// Lived is how long the machine is known to have lived, until it was taken back
// or last seen; 0 when it has no start.
func (i Instance) Lived() time.Duration {
	end, interrupted := i.Interrupted()
	if !interrupted {
		end = i.SeenAt
	}
	if i.StartedAt.IsZero() || end.Before(i.StartedAt) {
		return 0
	}
	return end.Sub(i.StartedAt)
}

// earlier is the earlier of two times, of which a zero one is not known.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

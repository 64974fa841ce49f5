// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

func TestAnAddressWithoutItsPasswordIsOtherwiseTheSame(t *testing.T) {
	t.Setenv("PGPASSWORD", "")
	for address, password := range map[string]string{
		"postgres://u:hunter2@db:5433/catalog?sslmode=disable":                     "hunter2",
		"postgresql://u:p%40ss@db/catalog?sslmode=disable":                         "p@ss",
		"postgres://u@db/catalog?password=hunter2&sslmode=disable":                 "hunter2",
		"postgres://u:hunter2@/catalog?host=/a,/b&target_session_attrs=read-write": "hunter2",
		"postgres://u@db/catalog?sslmode=disable":                                  "",
		"host=db user=u password=hunter2 dbname=catalog sslmode=disable":           "hunter2",
		`password = 'hunter 2\'s' host=db user=u dbname=catalog sslmode=disable`:   "hunter 2's",
		`host=db user=u dbname=catalog sslmode=disable password=hunter\ 2`:         `hunter 2`,
	} {
		without, got, err := postgres.SplitPassword(address)
		if err != nil || got != password {
			t.Errorf("%s: password %q, %v", address, got, err)
			continue
		}
		if password != "" && (strings.Contains(without, "hunter") || strings.Contains(without, "%40")) {
			t.Errorf("%s: %s still has it", address, without)
		}
		before, err1 := pgx.ParseConfig(address)
		after, err2 := pgx.ParseConfig(without)
		if err1 != nil || err2 != nil {
			t.Fatal(address, without, err1, err2)
		}
		if before.Host != after.Host || before.Port != after.Port || before.User != after.User || before.Database != after.Database || len(before.Fallbacks) != len(after.Fallbacks) || after.Password != "" {
			t.Errorf("%s became %s", address, without)
		}
	}
	if _, _, err := postgres.SplitPassword("postgres://u:hunter2@db:port/catalog"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

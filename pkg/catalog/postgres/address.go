// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// passwordWord is a password in a keyword string, quoted or not.
var passwordWord = regexp.MustCompile(`(^|\s)password\s*=\s*('(\\.|[^'\\])*'|(\\.|[^\s'\\])*)`)

// SplitPassword takes the password out of a database's address, so that the address can
// be an argument of a program.
func SplitPassword(address string) (without, password string, err error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return "", "", fmt.Errorf("database URL: %w", err) // pgx blanks the password
	}
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return strings.TrimSpace(passwordWord.ReplaceAllString(address, "")), config.Password, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", errors.New("database URL: it cannot be parsed") // the error would repeat it
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	values := u.Query()
	if values.Has("password") {
		values.Del("password")
		u.RawQuery = values.Encode()
	}
	return u.String(), config.Password, nil
}

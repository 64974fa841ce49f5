// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// handler takes orders on the control socket. Its file mode is the only access
// control: whoever may open it is root on the host.
func handler(sup *supervisor) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /services", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(sup.status())
	})
	mux.HandleFunc("POST /services/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		reply(w, sup.change(r.PathValue("name"), func(s *Service) { s.Held = false }))
	})
	mux.HandleFunc("POST /services/{name}/stop", func(w http.ResponseWriter, r *http.Request) {
		reply(w, sup.change(r.PathValue("name"), func(s *Service) { s.Held = true }))
	})
	mux.HandleFunc("PUT /services/{name}/args", func(w http.ResponseWriter, r *http.Request) {
		var args []string
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, sup.change(r.PathValue("name"), func(s *Service) { s.Args, s.Held = args, false }))
	})
	mux.HandleFunc("POST /run", func(w http.ResponseWriter, r *http.Request) {
		var out bytes.Buffer
		if err := sup.runOnce(r.URL.Query()["arg"], r.Body, &out); err != nil {
			http.Error(w, fmt.Sprintf("%v\n%s", err, out.String()), http.StatusUnprocessableEntity)
			return
		}
		_, _ = w.Write(out.Bytes())
	})
	mux.HandleFunc("PUT /files", func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, writeFile(r.URL.Query().Get("path"), content, 0o644))
	})
	return mux
}

func reply(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

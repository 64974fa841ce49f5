{{- /*
SPDX-License-Identifier: Apache-2.0
An image by its digest, or else by the tag: include "spotbench.image" (list . "scheduler")
*/ -}}
{{- define "spotbench.image" -}}
{{- $values := (index . 0).Values.image -}}
{{- $name := index . 1 -}}
{{- with get ($values.digests | default dict) $name -}}
{{ $values.registry }}/{{ $name }}@{{ . }}
{{- else -}}
{{ $values.registry }}/{{ $name }}:{{ $values.tag }}
{{- end -}}
{{- end -}}

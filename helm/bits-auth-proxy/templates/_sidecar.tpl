{{/*
For your own chart: the proxy as a native sidecar, an item of `initContainers`. The app starts when the proxy
has its first token, and it stops before the proxy does. Pass this chart's part of your context:

  initContainers:
    {{- include "bits-auth-proxy.sidecar" (index .Subcharts "bits-auth-proxy") | nindent 4 }}
  volumes:
    {{- include "bits-auth-proxy.volumes" (index .Subcharts "bits-auth-proxy") | nindent 4 }}
*/}}
{{- define "bits-auth-proxy.sidecar" -}}
{{- if ne .Values.mode "sidecar" -}}
{{- fail "bits-auth-proxy.mode: must be sidecar if a chart includes its templates" -}}
{{- end -}}
- name: bits-auth-proxy
  restartPolicy: Always
  {{- include "bits-auth-proxy.container" . | nindent 2 }}
  ports:
    {{- include "bits-auth-proxy.adminPort" . | nindent 4 }}
  {{- include "bits-auth-proxy.probes" . | nindent 2 }}
{{- end -}}

{{/* The release's name, with the chart's where it isn't part of it. */}}
{{- define "bits-auth-proxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What every object of this chart begins with: a name (with `suffix`), the namespace, labels.
     Takes a dict: root, suffix, labels (more of them). */}}
{{- define "bits-auth-proxy.metadata" -}}
name: {{ include "bits-auth-proxy.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "bits-auth-proxy.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "bits-auth-proxy.labels" -}}
{{ include "bits-auth-proxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Those of the gateway's pods, which never change. */}}
{{- define "bits-auth-proxy.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The names by which pods reach the gateway's Service, comma-separated. */}}
{{- define "bits-auth-proxy.hosts" -}}
{{- $name := include "bits-auth-proxy.fullname" . -}}
{{- $hosts := list $name -}}
{{- range list "" ".svc" ".svc.cluster.local" -}}
{{- $hosts = append $hosts (printf "%s.%s%s" $name $.Release.Namespace .) -}}
{{- end -}}
{{- $more := .Values.settings.BITS_ALLOWED_HOSTS -}}
{{- concat $hosts (kindIs "string" $more | ternary (list $more) ($more | default list)) | join "," -}}
{{- end -}}

{{/* The release's name, followed by the chart's name unless it already contains that. */}}
{{- define "bits-auth-proxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The metadata that every object of this chart has: a name (with `suffix`), the namespace and labels.
     Takes a dict with root, suffix and labels (additional ones). */}}
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

{{/* The labels that select the gateway's pods and never change. */}}
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

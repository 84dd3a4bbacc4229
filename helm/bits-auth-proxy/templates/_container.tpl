{{/* A container that runs the proxy, without its name, ports and probes. */}}
{{- define "bits-auth-proxy.container" -}}
{{ include "bits-auth-proxy.confined" . }}
env:
  {{- include "bits-auth-proxy.env" . | trim | nindent 2 }}
volumeMounts:
  - name: bits-credentials
    mountPath: /etc/bits-auth-proxy/credentials
    readOnly: true
  {{- if .Values.trustedCa.configMapName }}
  - name: bits-trusted-ca
    mountPath: /etc/bits-auth-proxy/trusted-ca
    readOnly: true
  {{- end }}
  {{- if include "bits-auth-proxy.tls" . }}
  - name: bits-tls
    mountPath: /etc/bits-auth-proxy/tls
    readOnly: true
  {{- end }}
{{- end -}}

{{/* A container of the image with minimal rights. */}}
{{- define "bits-auth-proxy.confined" -}}
image: {{ include "bits-auth-proxy.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  privileged: false
  readOnlyRootFilesystem: true
  runAsGroup: 65532
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "bits-auth-proxy.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest | quote -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) | quote -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The volumes that the container mounts. They are whole directories without subPath, so that a rotation
     reaches the proxy. */}}
{{- define "bits-auth-proxy.volumes" -}}
- name: bits-credentials
  secret:
    secretName: {{ .Values.credentials.secretName }}
    items:
      - key: {{ .Values.credentials.clientIdKey }}
        path: client_id
      - key: {{ .Values.credentials.clientSecretKey }}
        path: client_secret
{{- if .Values.trustedCa.configMapName }}
- name: bits-trusted-ca
  configMap:
    name: {{ .Values.trustedCa.configMapName }}
    items:
      - key: {{ .Values.trustedCa.key }}
        path: ca.crt
{{- end }}
{{- if include "bits-auth-proxy.tls" . }}
- name: bits-tls
  secret:
    secretName: {{ .Values.gateway.tls.secretName }}
{{- end }}
{{- end -}}

{{/* Returns a non-empty string if the listener uses TLS. */}}
{{- define "bits-auth-proxy.tls" -}}
{{- if eq .Values.mode "gateway" -}}{{- .Values.gateway.tls.secretName -}}{{- end -}}
{{- end -}}

{{/* The settings as environment variables: those that the chart needs, then those in the values. */}}
{{- define "bits-auth-proxy.env" -}}
{{- $env := dict
  "BITS_ADMIN_LISTEN" (include "bits-auth-proxy.everywhere" (dict "root" . "port" .Values.adminPort))
  "BITS_CREDENTIALS_DIR" "/etc/bits-auth-proxy/credentials"
-}}
{{- with .Values.operatorPort -}}
{{- $_ := set $env "BITS_ADMIN_LISTEN" (printf "%s,127.0.0.1:%d" $env.BITS_ADMIN_LISTEN (int .)) -}}
{{- end -}}
{{- if .Values.trustedCa.configMapName -}}
{{- $_ := set $env "BITS_UPSTREAM__CA_FILE" "/etc/bits-auth-proxy/trusted-ca/ca.crt" -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- $_ := set $env "BITS_LISTEN" (include "bits-auth-proxy.everywhere" (dict "root" . "port" .Values.port)) -}}
{{- $_ := set $env "BITS_DRAIN_DELAY" (include "bits-auth-proxy.seconds" (list . "BITS_DRAIN_DELAY")) -}}
{{- if .Values.gateway.tls.secretName -}}
{{- $_ := set $env "BITS_LISTEN_TLS__CERT" "/etc/bits-auth-proxy/tls/tls.crt" -}}
{{- $_ := set $env "BITS_LISTEN_TLS__KEY" "/etc/bits-auth-proxy/tls/tls.key" -}}
{{- if .Values.gateway.tls.clientCertificates -}}
{{- $_ := set $env "BITS_LISTEN_TLS__CLIENT_CA" "/etc/bits-auth-proxy/tls/ca.crt" -}}
{{- end -}}
{{- with .Values.gateway.tls.allowedNames -}}
{{- $_ := set $env "BITS_LISTEN_TLS__ALLOWED_NAMES" . -}}
{{- end -}}
{{- if .Values.gateway.tls.revocationLists -}}
{{- $_ := set $env "BITS_LISTEN_TLS__CRL" "/etc/bits-auth-proxy/tls/ca.crl" -}}
{{- end -}}
{{- end -}}
{{- else if ne (int .Values.port) 8080 -}}
{{- $_ := set $env "BITS_LISTEN" (printf "127.0.0.1:%d" (int .Values.port)) -}}
{{- if .Values.ipv6 -}}
{{- $_ := set $env "BITS_LISTEN" (printf "127.0.0.1:%d,[::1]:%d" (int .Values.port) (int .Values.port)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- $_ := set $env $name $value -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- $_ := set $env "BITS_ALLOWED_HOSTS" (include "bits-auth-proxy.hosts" .) -}}
{{- end -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if kindIs "string" $value }}
  value: {{ $value | quote }}
  {{- else }}
  {{- /* `quote` alone would write 16777216 as 1.6777216e+07. */}}
  value: {{ toJson $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A port on all addresses of the pod. Takes a dict with root and port. */}}
{{- define "bits-auth-proxy.everywhere" -}}
{{- printf "0.0.0.0:%d" (int .port) -}}
{{- if .root.Values.ipv6 -}}{{- printf ",[::]:%d" (int .port) -}}{{- end -}}
{{- end -}}

{{/* A duration from the settings, or its default. Takes a list of root and variable. */}}
{{- define "bits-auth-proxy.seconds" -}}
{{- $settings := (first .).Values.settings -}}
{{- $name := last . -}}
{{- $unset := dict "BITS_DRAIN_DELAY" 5 "BITS_DRAIN_TIMEOUT" 25 "BITS_STARTUP_GRACE" 30 -}}
{{- hasKey $settings $name | ternary (get $settings $name) (get $unset $name) | toJson -}}
{{- end -}}

{{- define "bits-auth-proxy.adminPort" -}}
- name: bits-admin
  containerPort: {{ .Values.adminPort }}
{{- end -}}

{{/* The app starts, or the gateway gets traffic, once there is a token or the wait for it has been long enough. */}}
{{- define "bits-auth-proxy.probes" -}}
startupProbe:
  httpGet:
    path: /startupz
    port: bits-admin
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: {{ include "bits-auth-proxy.seconds" (list . "BITS_STARTUP_GRACE") | float64 | ceil | add 30 }}
livenessProbe:
  httpGet:
    path: /livez
    port: bits-admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- define "cloakroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 57, so that `-admin` still fits. */}}
{{- define "cloakroom.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" -}}
{{- else if contains (include "cloakroom.name" .) .Release.Name -}}
{{- .Release.Name | trunc 57 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cloakroom.name" .) | trunc 57 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cloakroom.selector" -}}
app.kubernetes.io/name: {{ include "cloakroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cloakroom.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "cloakroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cloakroom.meta" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "cloakroom.labels" . | nindent 2 }}
{{- end -}}

{{- define "cloakroom.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cloakroom.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cloakroom.secret" -}}
{{- default (include "cloakroom.fullname" .) .Values.existingSecret -}}
{{- end -}}

{{- define "cloakroom.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings: what the chart knows and `config` together. */}}
{{- define "cloakroom.settings" -}}
{{- range $key := list "listeners" "admin" "shutdown" -}}
{{- if hasKey $.Values.config $key -}}
{{- fail (printf "config.%s: the chart writes this section; see the values `listeners`, `admin` and `drain`, or bring a whole file with `existingConfigMap`" $key) -}}
{{- end -}}
{{- end -}}
{{- $l := .Values.listeners -}}
{{- $http := dict "address" (printf "%s:%v" $l.bindAddress $l.http.port) -}}
{{- if and $l.https.enabled $l.http.redirectToHttps -}}
{{- $_ := set $http "redirect_to_https" (int .Values.service.httpsPort | eq 443 | ternary true (int .Values.service.httpsPort)) -}}
{{- end -}}
{{- $listeners := list (merge $http $l.http.settings) -}}
{{- if $l.https.enabled -}}
{{- $certificates := list -}}
{{- range $l.https.certificates -}}
{{- $folder := printf "/etc/cloakroom/tls/%s" .secretName -}}
{{- $certificates = append $certificates (dict "certificate" (printf "%s/tls.crt" $folder) "key" (printf "%s/tls.key" $folder)) -}}
{{- end -}}
{{- $tls := merge (dict "certificates" $certificates) $l.https.tls -}}
{{- $https := dict "address" (printf "%s:%v" $l.bindAddress $l.https.port) "tls" $tls -}}
{{- $listeners = append $listeners (merge $https $l.https.settings) -}}
{{- end -}}
{{- $admin := dict "address" (printf "%s:%v" $l.bindAddress .Values.admin.port) -}}
{{- if .Values.admin.token -}}
{{- $_ := set $admin "token" (dict "env" "CLOAKROOM_ADMIN_TOKEN") -}}
{{- end -}}
{{- $shutdown := dict "lame_duck" (printf "%vs" .Values.drain.lameDuck) "grace" (printf "%vs" .Values.drain.grace) -}}
{{- merge (deepCopy .Values.config) (dict "listeners" $listeners "admin" $admin "shutdown" $shutdown) | toYaml -}}
{{- end -}}

{{/* What holds only after a restart: a change of it rolls the pods. The rest is read again while they run. */}}
{{- define "cloakroom.restart" -}}
{{- omit (include "cloakroom.settings" . | fromYaml) "sites" "upstreams" "trusted_proxies" | toYaml | sha256sum -}}
{{- end -}}

{{/* Secrets that would lie open in the ConfigMap; `${NAME}` is none. What has a wrong form, `cloakroom check` tells. */}}
{{- define "cloakroom.open" -}}
{{- $found := dict -}}
{{- $rings := dict "keys" .keys "proxy_token.keys" (.proxy_token | default dict).keys -}}
{{- range $ring, $keys := $rings -}}
{{- range $i, $key := $keys -}}
{{- $_ := set $found (printf "%s[%d].secret" $ring $i) $key.secret -}}
{{- end -}}
{{- end -}}
{{- range $i, $provider := .providers -}}
{{- $_ := set $found (printf "providers[%d].client_auth.secret" $i) ($provider.client_auth | default dict).secret -}}
{{- $_ := set $found (printf "providers[%d].dpop.key" $i) ($provider.dpop | default dict).key -}}
{{- end -}}
{{- $_ := set $found "store.url" (.store | default dict).url -}}
{{- range $place, $value := $found -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{- $text := regexReplaceAllLiteral "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" (toString $value) "" -}}
{{- if ternary (regexMatch "://[^@/?]*:[^@?]+@|[?&](sentinelP|p)assword=[^&]" $text) (ne $text "") (eq $place "store.url") -}}
{{- fail (printf "config.%s: as text it would lie open in the ConfigMap: write { env: NAME }, with NAME in the Secret" $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Mistakes that neither the schema nor `cloakroom check` can see. */}}
{{- define "cloakroom.checks" -}}
{{- $most := int .Values.replicaCount -}}
{{- if .Values.autoscaling.enabled -}}{{- $most = int .Values.autoscaling.maxReplicas -}}{{- end -}}
{{- if not .Values.existingConfigMap -}}
{{- $kind := dig "store" "kind" "memory" .Values.config -}}
{{- if and .Values.config.providers (gt $most 1) (has $kind (list "memory" "file")) -}}
{{- fail (printf "config.store.kind: %s serves one replica; %d would not know each other's sessions: set redis or postgres, or replicaCount: 1" $kind $most) -}}
{{- end -}}
{{- if and (eq $kind "file") (ne .Values.strategy.type "Recreate") -}}
{{- fail "config.store.kind: file belongs to one process at a time: set strategy to {type: Recreate, rollingUpdate: null}" -}}
{{- end -}}
{{- include "cloakroom.open" .Values.config -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas: %v is more than maxReplicas, %v" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) -}}
{{- end -}}
{{- $ports := list (int .Values.listeners.http.port) (int .Values.admin.port) -}}
{{- if .Values.listeners.https.enabled -}}{{- $ports = append $ports (int .Values.listeners.https.port) -}}{{- end -}}
{{- if lt (len (uniq $ports)) (len $ports) -}}
{{- fail "listeners.http.port, listeners.https.port, admin.port: each needs a port of its own" -}}
{{- end -}}
{{- if and .Values.secret .Values.existingSecret -}}
{{- fail "secret and existingSecret: one of them" -}}
{{- end -}}
{{- if and .Values.listeners.https.enabled (not .Values.listeners.https.certificates) -}}
{{- fail "listeners.https.certificates: name a Secret of type kubernetes.io/tls, or set listeners.https.enabled: false" -}}
{{- end -}}
{{- end -}}

{{- /* The name of everything that a release makes, with -operator at its end. */ -}}
{{- define "leanmodel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $base := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- printf "%s-operator" ($base | trunc 41 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- /* The name of what belongs to no namespace: two releases that look after namespaces of their own may have one name. */ -}}
{{- define "leanmodel.clusterName" -}}
{{- $name := include "leanmodel.fullname" . -}}
{{- ternary (printf "%s-%s" .Release.Namespace $name) $name (not (empty .Values.namespaces)) -}}
{{- end -}}

{{- define "leanmodel.selectorLabels" -}}
app.kubernetes.io/name: leanmodel-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "leanmodel.labels" -}}
{{ include "leanmodel.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: leanmodel
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "leanmodel.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "leanmodel.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: with serviceAccount.create=false, name the account that there is" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "leanmodel.leaseName" -}}
{{- default (include "leanmodel.fullname" .) .Values.leaderElection.leaseName -}}
{{- end -}}

{{- /* One image. Takes {root, image}. Registry: the image's own, else global.imageRegistry, else none. */ -}}
{{- define "leanmodel.image" -}}
{{- $registry := default .root.Values.global.imageRegistry .image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (not (empty $registry)) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Names of pull secrets, with commas. Takes {root, secrets}; those of global.imagePullSecrets come first. */ -}}
{{- define "leanmodel.pullSecrets" -}}
{{- concat .root.Values.global.imagePullSecrets .secrets | uniq | join "," -}}
{{- end -}}

{{- /* The name of a priority class. Takes {root, class, part}; none, when it is neither made nor named. */ -}}
{{- define "leanmodel.priorityClass" -}}
{{- if .class.create -}}
{{- default (printf "%s-%s" (include "leanmodel.clusterName" .root) .part) .class.name -}}
{{- else -}}
{{- .class.name -}}
{{- end -}}
{{- end -}}

{{- /* Rules of RBAC as YAML, with the Lease's name filled in. Takes {root, part}: a part of files/rbac.yaml. */ -}}
{{- define "leanmodel.rules" -}}
{{- $all := .root.Files.Get "files/rbac.yaml" | replace "LEASE_NAME" (include "leanmodel.leaseName" .root) | fromYaml -}}
{{- toYaml (index $all .part) -}}
{{- end -}}

{{- /* What the schema cannot say. */ -}}
{{- define "leanmodel.validate" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) -}}
{{- fail (printf "replicas: found %d with leaderElection.enabled=false; without an election two replicas would both write: set replicas to 1, or leaderElection.enabled to true" (int .Values.replicas)) -}}
{{- end -}}
{{- if ge (float64 .Values.settings.renewSeconds) (float64 .Values.settings.leaseSeconds) -}}
{{- fail (printf "settings.renewSeconds: found %v with settings.leaseSeconds %v; a leader must give up before it is replaced: write less than settings.leaseSeconds" .Values.settings.renewSeconds .Values.settings.leaseSeconds) -}}
{{- end -}}
{{- if ge (float64 .Values.settings.retrySeconds) (float64 .Values.settings.renewSeconds) -}}
{{- fail (printf "settings.retrySeconds: found %v with settings.renewSeconds %v; a leader must try more than once before it gives up: write less than settings.renewSeconds" .Values.settings.retrySeconds .Values.settings.renewSeconds) -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and $budget.enabled (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget: minAvailable and maxUnavailable exclude each other; set one of them to null" -}}
{{- end -}}
{{- end -}}

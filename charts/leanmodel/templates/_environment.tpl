{{- /*
The operator's settings as its environment: LEANMODEL_ and the name of a field of Settings
(operator/leanmodel_operator/cluster/settings.py). What the chart knows itself stands first; the rest are the values
below `settings`, each under its own name.
*/ -}}
{{- define "leanmodel.environment" -}}
- name: LEANMODEL_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: LEANMODEL_LEASE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- $jobs := dict "root" . "class" .Values.jobs.priorityClass "part" "jobs" }}
{{- $serving := dict "root" . "class" .Values.serving.priorityClass "part" "serving" }}
{{- $own := dict
      "NAMESPACES" (join "," .Values.namespaces)
      "LEADER_ELECTION" (toString .Values.leaderElection.enabled)
      "LEASE_NAME" (include "leanmodel.leaseName" .)
      "HTTP_PORT" (toString .Values.port)
      "COMPRESSOR_IMAGE" (include "leanmodel.image" (dict "root" . "image" .Values.images.compressor))
      "PROVER_IMAGE" (include "leanmodel.image" (dict "root" . "image" .Values.images.prover))
      "SERVER_IMAGE" (include "leanmodel.image" (dict "root" . "image" .Values.images.server))
      "IMAGE_PULL_POLICY" .Values.images.pullPolicy
      "JOB_PULL_SECRETS" (include "leanmodel.pullSecrets" (dict "root" . "secrets" .Values.jobs.pullSecrets))
      "SERVING_PULL_SECRETS" (include "leanmodel.pullSecrets" (dict "root" . "secrets" .Values.serving.pullSecrets))
      "JOB_PRIORITY_CLASS" (include "leanmodel.priorityClass" $jobs)
      "SERVING_PRIORITY_CLASS" (include "leanmodel.priorityClass" $serving) }}
{{- range $key, $value := $own }}
- name: LEANMODEL_{{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- range $key, $value := .Values.settings }}
- name: LEANMODEL_{{ $key | snakecase | upper }}
  {{- /* toJson, not toString: Helm's numbers are floats, and 1e+06 is no integer to the operator. */}}
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end -}}

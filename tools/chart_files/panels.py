"""What the dashboard shows: each panel's words and queries, and nothing of how Grafana draws it.

``$namespace`` and ``$leanmodel`` are the dashboard's variables; the labels behind them come with the PodMonitor of the
chart. The operator's own metrics know no single LeanModel and are not filtered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

WHERE = 'namespace=~"$namespace", leanmodel=~"$leanmodel"'
RATE = "$__rate_interval"
EACH = "namespace, leanmodel"


@dataclass(frozen=True)
class Panel:
    """One panel: queries by legend (Grafana's ``{{label}}``), unit as Grafana names it, width of 24, height in lines."""

    title: str
    words: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["stat", "lines", "stacked"] = "lines"
    width: int = 8
    decimals: int | None = None
    height: int = 8
    colours: dict[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A row of panels."""

    title: str
    panels: tuple[Panel, ...]


def rate(name: str, by: str = "", more: str = "", window: str = RATE) -> str:
    """Return the rate per second of one of the router's counters, summed."""
    return f"sum{_by(by)} (rate({name}{{{_join(more)}}}[{window}]))"


def increase(name: str, by: str = "", more: str = "") -> str:
    """Return what one of the router's counters gained in the time shown, summed."""
    return f"sum{_by(by)} (increase({name}{{{_join(more)}}}[$__range]))"


def quantile(share: float, name: str, by: str) -> str:
    """Return a quantile of one of the router's histograms."""
    return f"histogram_quantile({share:g}, {rate(f'{name}_bucket', f'{by}, le')})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _join(more: str) -> str:
    return f"{WHERE}, {more}" if more else WHERE


def _quantiles(name: str, by: str, shares: tuple[float, ...] = (0.5, 0.95)) -> dict[str, str]:
    return {f"{{{{{by}}}}} p{share * 100:g}": quantile(share, name, by) for share in shares}


REQUESTS = "ray_leanmodel_requests_total"
COST = "ray_leanmodel_cost_usd_total"
INSTEAD = "ray_leanmodel_counterfactual_cost_usd_total"

MONEY = Group("Cost and saving", (
    Panel("Saved by routing", "What the same requests would have cost on the large model alone, minus what they cost, "
          "in the time shown. Replicas of your own save this money only when there are fewer of them.",
          {"saved": f"{increase(INSTEAD)} - {increase(COST)}"}, "currencyUSD", "stat", 4, 2, 4,
          {0: "green", -1e18: "red"}),
    Panel("Saved, share", "The same as a share of what the large model alone would have cost.",
          {"share": f"1 - {increase(COST)} / {increase(INSTEAD)}"}, "percentunit", "stat", 4, 1, 4,
          {0: "green", -1e18: "red"}),
    Panel("Cost", "Of all answered requests in the time shown, attempts of the lean model included.",
          {"cost": increase(COST)}, "currencyUSD", "stat", 4, 2, 4),
    Panel("Requests", "Generations asked for in the time shown.",
          {"requests": increase(REQUESTS)}, "short", "stat", 4, 0, 4),
    Panel("Answered by the lean model alone", "Share of the answered requests.",
          {"lean": f"""{increase(REQUESTS, more='status="200", route="lean"')} / {increase(REQUESTS, more='status="200"')}"""},
          "percentunit", "stat", 4, 1, 4),
    Panel("Server errors", "Share of requests that ended with a status of 500 or more.",
          {"errors": f"""{increase(REQUESTS, more='status=~"5.."')} / {increase(REQUESTS)}"""},
          "percentunit", "stat", 4, 2, 4, {-1e18: "green", 0.01: "orange", 0.05: "red"}),
    Panel("Cost per hour", "What requests cost, beside what they would cost on the large model alone.",
          {"{{namespace}}/{{leanmodel}}": f"{rate(COST, EACH)} * 3600",
           "{{namespace}}/{{leanmodel}} all large": f"{rate(INSTEAD, EACH)} * 3600"}, "currencyUSD", width=12),
    Panel("Saved per hour, by route", "Below zero where asking both models cost more than the large one alone.",
          {"{{route}}": f"({rate(INSTEAD, 'route')} - {rate(COST, 'route')}) * 3600"}, "currencyUSD", width=12),
))  # fmt: skip

ROUTES = Group("Routes", (
    Panel("Requests per second", "By route; none: refused, or failed before an answer.",
          {"{{route}}": rate(REQUESTS, "route")}, "reqps", "stacked"),
    Panel("Share of routes", "Of the answered requests.",
          {"{{route}}": f"""{rate(REQUESTS, 'route', 'status="200"')} / ignoring (route) group_left () {rate(REQUESTS, more='status="200"')}"""},
          "percentunit", "stacked"),
    Panel("Escalations per second", "Both models were asked: the lean one was not sure enough (confidence) or failed.",
          {"{{reason}}": rate("ray_leanmodel_escalations_total", "reason")}, "reqps"),
    Panel("Confidence of lean answers", "Calibrated chance that accepting the answer does no harm: median and lowest "
          "tenth, by what was decided. A fall tells that requests are no longer those of the proof.",
          _quantiles("ray_leanmodel_confidence", "decision", (0.1, 0.5)), "percentunit"),
    Panel("Out of the certificate's scope", "Went to the large model because the proof does not speak of them.",
          {"{{kind}}": rate("ray_leanmodel_out_of_scope_total", "kind")}, "reqps"),
    Panel("Statuses other than 200", "499: the client went away.",
          {"{{status}}": rate(REQUESTS, "status", 'status!="200"')}, "reqps", "stacked"),
    Panel("Lean model passed over", "Its engine failed repeatedly just before, so the large one was asked at once.",
          {"{{namespace}}/{{leanmodel}}": rate("ray_leanmodel_lean_skipped_total", EACH)}, "reqps", width=12),
    Panel("Proving", "Requests on the internal route, in none of the other figures.",
          {"{{status}}": rate("ray_leanmodel_internal_requests_total", "status")}, "reqps", width=12),
))  # fmt: skip

PROMISE = Group("The promise, as production keeps it", (
    Panel("Alarms", "Monitors that have found a promise broken: its router sends everything to the large model.",
          {"alarms": f"sum(max by ({EACH}, monitor) (ray_leanmodel_alarm{{{WHERE}}}))"}, kind="stat", width=4,
          decimals=0, colours={-1e18: "green", 1: "red"}),
    Panel("What decided", "The policy, or what came before it: scope, an alarm, the conversation, a header, a failing engine.",
          {"{{reason}}": rate("ray_leanmodel_decisions_total", "reason")}, "reqps", "stacked", width=8),
    Panel("Shadows per second", "Accepted lean answers that the large model was asked too.",
          {"{{result}}": rate("ray_leanmodel_shadows_total", "result")}, "reqps", "stacked", width=8),
    Panel("Monitors' state kept", "0: it could not be written at the last look.",
          {"kept": f"min(ray_leanmodel_watch_kept{{{WHERE}}})"}, kind="stat", width=4, decimals=0,
          colours={-1e18: "red", 1: "green"}),
    Panel("Which promise", "Answers by the promise that covers them: full, the second one under pressure, suspended, none.",
          {"{{promise}}": rate("ray_leanmodel_promises_total", "promise")}, "reqps", "stacked", width=12),
    Panel("Pressure", "Replicas in which the second promise is in force, by what put it there. Empty without one.",
          {"{{namespace}}/{{leanmodel}} {{cause}}": f"sum by ({EACH}, cause) (ray_leanmodel_pressure{{{WHERE}}})"},
          decimals=0, width=12),
))  # fmt: skip

FAILING = Group("When a model fails", (
    Panel("Breakers", "Of lean, large and external: 0 closed, 1 one request tries, 2 left alone. The worst of all replicas.",
          {"{{namespace}}/{{leanmodel}} {{role}}": f"max by ({EACH}, role) (ray_leanmodel_backend_state{{{WHERE}}})"},
          decimals=0),
    Panel("External provider", "Requests that the large model could not answer, by what became of them at the provider. "
          "Empty where none is allowed.",
          {"{{result}}": rate("ray_leanmodel_external_requests_total", "result")}, "reqps", "stacked"),
    Panel("Second tries", "Before the first byte, within the budget; no-budget: not tried, too many were.",
          {"{{role}} {{result}}": rate("ray_leanmodel_retries_total", "role, result")}, "reqps", "stacked"),
))  # fmt: skip

LEFT, BUDGET = "ray_leanmodel_budget_left_usd", "ray_leanmodel_budget_usd"

BOUNDS = Group("Budgets and bounds", (
    Panel("Budget left", "Neither spent nor held by requests under way, in the running hour and day (UTC).",
          {"{{namespace}}/{{leanmodel}} {{window}}": f"min by ({EACH}, window) ({LEFT}{{{WHERE}}})"}, "currencyUSD"),
    Panel("Budget left, share", "Of the tightest window.",
          {"left": f"min({LEFT}{{{WHERE}}} / {BUDGET}{{{WHERE}}})"}, "percentunit", "stat", 4, 0,
          colours={-1e18: "red", 0.1: "orange", 0.25: "green"}),
    Panel("Ledger kept", "0: it cannot be written, and where there is a budget requests are refused.",
          {"kept": f"min(ray_leanmodel_ledger_kept{{{WHERE}}})"}, kind="stat", width=4, decimals=0,
          colours={-1e18: "red", 1: "green"}),
    Panel("Turned away", "By the bound that did it: keys, budgets, rates, the queue, body and time.",
          {"{{reason}}": rate("ray_leanmodel_refused_total", "reason")}, "reqps", "stacked"),
    Panel("Cost per hour, by tenant", "Of the keys that were used.",
          {"{{tenant}}": f"{rate('ray_leanmodel_tenant_cost_usd_total', 'tenant')} * 3600"}, "currencyUSD", width=12),
    Panel("Under way and waiting", "Of all replicas of the router.",
          {"under way": f"sum(ray_leanmodel_requests_active{{{WHERE}}})",
           "waiting": f"sum(ray_leanmodel_requests_waiting{{{WHERE}}})"}, width=12),
))  # fmt: skip

LATENCY = Group("Latency and tokens", (
    Panel("Whole request", "First byte read to last byte sent.",
          _quantiles("ray_gen_ai_server_request_duration_seconds", "route"), "s"),
    Panel("Time to the first token", "Streams only.",
          _quantiles("ray_gen_ai_server_time_to_first_token_seconds", "route"), "s"),
    Panel("Time per token after it", "Streams only, as the engine sent them.",
          _quantiles("ray_gen_ai_server_time_per_output_token_seconds", "route"), "s"),
    Panel("Tokens per second", "By the model that worked.",
          {"{{role}} {{gen_ai_token_type}}": rate("ray_leanmodel_tokens_total", "role, gen_ai_token_type")}, width=12),
    Panel("Output tokens per second, by revision", "Shows a new revision taking over.",
          {"{{revision}}": rate("ray_leanmodel_tokens_total", "revision", 'gen_ai_token_type="output"')}, width=12),
))  # fmt: skip

CONDITIONS = Group("LeanModels and their conditions (all namespaces)", (
    Panel("LeanModels", "That the operator looks after.",
          {"LeanModels": "sum(leanmodel_operator_leanmodels)"}, kind="stat", width=4, decimals=0),
    Panel("Ready", "By the state of the condition Ready.",
          {"{{status}}": 'sum by (status) (leanmodel_operator_objects{condition="Ready"})'}, kind="stacked", width=10),
    Panel("Conditions", "LeanModels by condition and its state.",
          {"{{condition}} {{status}}": "sum by (condition, status) (leanmodel_operator_objects)"}, width=10),
    Panel("Settings in force", "Generation of the router's settings.",
          {"{{namespace}}/{{leanmodel}}": f"max by ({EACH}) (ray_leanmodel_settings_generation{{{WHERE}}})"}, width=12),
    Panel("Settings refused", "Files that a router could not use; the ones before stay in force.",
          {"{{namespace}}/{{leanmodel}}": increase("ray_leanmodel_settings_errors_total", EACH)}, width=12),
))  # fmt: skip

OPERATOR = Group("Operator", (
    Panel("Leaders", "One; for a moment none while another takes over.",
          {"{{namespace}}": "sum by (namespace) (leanmodel_operator_leader)"}, kind="stat", width=4, decimals=0,
          colours={-1e18: "red", 1: "green", 2: "red"}),
    Panel("Turns per second", "Of the loop, by result.",
          {"{{result}}": f"sum by (result) (rate(leanmodel_operator_reconciles_total[{RATE}]))"}, "ops", "stacked", 10),
    Panel("Seconds of a turn", "",
          {f"p{share * 100:g}": f"histogram_quantile({share:g}, sum by (le) "
           f"(rate(leanmodel_operator_reconcile_seconds_bucket[{RATE}])))" for share in (0.5, 0.95)}, "s", width=10),
    Panel("Queue", "LeanModels that wait for a worker.",
          {"{{pod}}": "sum by (pod) (leanmodel_operator_queue_depth)"}, width=12),
    Panel("Calls of the API per second", "By verb and HTTP status; 0: no answer.",
          {"{{verb}} {{code}}": f"sum by (verb, code) (rate(leanmodel_operator_api_calls_total[{RATE}]))"},
          "reqps", "stacked", 12),
))  # fmt: skip

GROUPS = (MONEY, ROUTES, PROMISE, FAILING, BOUNDS, LATENCY, CONDITIONS, OPERATOR)

"""The dashboard of model calls: their providers, times, tokens and failures."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, mean, quantiles, rate

_CALLS: Final = "gen_ai_client_operation_duration_seconds"
_PROVIDER: Final = "gen_ai_provider_name"

DASHBOARD: Final = Dashboard(
    "kitemesh-models",
    "kitemesh / Models",
    "What models are asked, how fast they answer, what they cost in tokens, and which are left alone.",
    (
        Row(
            "Calls",
            (
                Panel(
                    "Calls by provider",
                    "Model calls ended, a second.",
                    "a second",
                    (Query(rate(f"{_CALLS}_count", _PROVIDER), f"{{{{{_PROVIDER}}}}}"),),
                    stacked=True,
                ),
                Panel(
                    "Failures",
                    "Model calls that failed, a second, by our code. upstream.limited: ask for more quota, or fall "
                    "back.",
                    "a second",
                    (Query(rate(f'{_CALLS}_count{{error_type!=""}}', "error_type"), "{{error_type}}"),),
                    stacked=True,
                ),
                Panel(
                    "Duration",
                    "Of a model call, from sending to its last token.",
                    "seconds",
                    quantiles(_CALLS, _PROVIDER, of=(0.5, 0.95)),
                ),
            ),
        ),
        Row(
            "Speed",
            (
                Panel(
                    "First token",
                    "From sending a call to its first token, as the provider's server is seen from here.",
                    "seconds",
                    quantiles("gen_ai_server_time_to_first_token_seconds", _PROVIDER, of=(0.5, 0.95)),
                ),
                Panel(
                    "Time for each output token",
                    "After the first. What a person sees as the speed of writing: 0.05 s are twenty tokens a second.",
                    "seconds",
                    quantiles("gen_ai_server_time_per_output_token_seconds", _PROVIDER, of=(0.5, 0.95)),
                ),
                Panel(
                    "Our own time",
                    "Time that turns spend in a model-runner beside the provider's, and in its queue before.",
                    "seconds",
                    quantiles("kitemesh_hop_seconds", "hop", '{hop=~"runner|model_queue"}', of=(0.5, 0.95)),
                ),
            ),
        ),
        Row(
            "Tokens",
            (
                Panel(
                    "Tokens",
                    "In and out, a second, as providers report them: what the bill is made of.",
                    "a second",
                    (Query(rate("kitemesh_model_tokens_total", "direction"), "{{direction}}"),),
                ),
                Panel(
                    "Tokens of a call",
                    "Input grows with a conversation: a prompt that is far longer than it was is a history without "
                    "window.",
                    "number",
                    quantiles("gen_ai_client_token_usage", "gen_ai_token_type", of=(0.5, 0.95)),
                ),
                Panel(
                    "Mean tokens of a call",
                    "By provider.",
                    "number",
                    (
                        Query(
                            mean("gen_ai_client_token_usage", f"{_PROVIDER}, gen_ai_token_type"),
                            f"{{{{{_PROVIDER}}}}} {{{{gen_ai_token_type}}}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Upstreams",
            (
                Panel(
                    "State",
                    "Of each provider's worst model, as the runner that sees it worst: 2 is left alone for a while. "
                    "See KitemeshUpstreamDown.",
                    "state",
                    (Query("max by (upstream) (kitemesh_upstream_state)", "{{upstream}}"),),
                    names=((0, "well", "green"), (1, "being tried", "yellow"), (2, "left alone", "red")),
                ),
                Panel(
                    "Fallbacks",
                    "Times a second that the next model of a group was asked, and why.",
                    "a second",
                    (Query(rate("kitemesh_upstream_fallbacks_total", "reason"), "{{reason}}"),),
                    stacked=True,
                ),
                Panel(
                    "Slots of model-runners",
                    "Share in use, by pool. At 90 % the next burst waits: add replicas.",
                    "share",
                    (Query('pool:kitemesh_slots_used:ratio{service="model-runner"}', "{{pool}}"),),
                    thresholds=((0.7, "yellow"), (0.9, "red")),
                ),
            ),
        ),
    ),
)

"""What this version must do, as one sentence for each requirement, with the public place that it comes from.

Tests name what they prove with `@pytest.mark.requirement("id")`; `contract/test_requirements.py` holds the two
together. A requirement that nothing proves does not belong here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Requirement(NamedTuple):
    """A behaviour that can be observed, and where it is asked for."""

    sentence: str
    source: str


OPENAI: Final = "OpenAI chat completions API"
SEED: Final = "seed 000, the first published API"
UI: Final = "seed 001, the UI message stream API"
RUN: Final = "seed 001, the run API's completions"
KERNEL: Final = "seed 002, the kernel chat API"
KNOWLEDGE: Final = "docs/catalog.md: knowledge"
NUMBERED: Final = "seed 003, the agents API"
NATIVE: Final = "this server's own HTTP API"
NATS_PY: Final = "nats-py 2.16.0"
CLIENTS: Final = "docs/clients.md"
CLASSIC: Final = "architecture: a classic turn"
DURABLE: Final = "architecture: a durable turn"
KEYS: Final = "The Idempotency-Key HTTP header field (IETF draft)"
DYING: Final = "architecture: when something dies"
PURE: Final = "architecture: pure inside, adapters at the edge"
MACHINES: Final = "architecture: several machines"
WIRE: Final = "docs/wire.md: messages"
FRAMES: Final = "docs/wire.md: captured frames"
WEBHOOKS: Final = "docs/approvals.md: webhooks"
TOOLS: Final = "docs/catalog.md: tools"
RACES: Final = "docs/approvals.md: races"
POLICIES: Final = "docs/catalog.md: policies"
HOLDS: Final = "docs/approvals.md"
AGENTS: Final = "docs/catalog.md: parts"
KEYS_OF: Final = "docs/tenants.md: keys"
TENANTS: Final = "docs/tenants.md: what is said of a tenant"
LIMITS: Final = "docs/tenants.md: limits"
WAITING: Final = "docs/tenants.md: waiting"
FAIRNESS: Final = "docs/tenants.md: fairness"
USAGE: Final = "docs/tenants.md: usage"
RETENTION: Final = "docs/tenants.md: retention"
ALERTS: Final = "docs/runbook.md: alerts"
DASHBOARDS: Final = "docs/dashboards.md"
ACCESS: Final = "docs/tenants.md: least privilege"
METRICS: Final = "docs/metrics.md"
FAULTS: Final = "docs/upstreams.md: faults"
ROUTING: Final = "docs/upstreams.md: which model answers"
BREAKER: Final = "docs/upstreams.md: the breaker"
UPSTREAMS_WATCHED: Final = "docs/upstreams.md: what to watch"
SCALING: Final = "docs/scaling.md"
OPERATING: Final = "docs/operating.md"
KUBERNETES: Final = "docs/kubernetes.md"

REQUIREMENTS: Final[Mapping[str, Requirement]] = MappingProxyType(
    {
        "access:again": Requirement("Granting access again changes nothing, and sets right what differs.", ACCESS),
        "access:bootstrap": Requirement(
            "Bootstrap makes a user for each service and writes what the servers include.", ACCESS
        ),
        "access:bus": Requirement(
            "A service publishes, hears, takes and acknowledges on the bus what is its own, and nothing else.", ACCESS
        ),
        "access:denied-is-no-outage": Requirement(
            "What a server denies fails at once, is counted and logged, and is no outage.", ACCESS
        ),
        "access:one-machine": Requirement(
            "On one machine data from before there were users is kept and gets them.", ACCESS
        ),
        "access:store": Requirement(
            "A service reads and writes the collections that its role lists, and nothing else.", ACCESS
        ),
        "access:whole-cluster": Requirement(
            "The services of a whole cluster are users of their own and are denied nothing that they do.", ACCESS
        ),
        "agents:clear": Requirement(
            "Clearing a history, or one conversation of it, tells how many rows that were, and again none.",
            NUMBERED,
        ),
        "agents:cleared-for-good": Requirement(
            "What runs or is held when a history is cleared is cancelled first, and nothing of it comes back.", NUMBERED
        ),
        "agents:context-and-prompt": Requirement(
            "A message's context and its own prompt reach the model for that turn alone and are recorded on it.",
            NUMBERED,
        ),
        "agents:continues": Requirement(
            "A conversation goes on under its id, and one that the client names first is begun under that name.",
            NUMBERED,
        ),
        "agents:conversation-filter": Requirement(
            "A page, and the number of all rows, can be those of one conversation.", NUMBERED
        ),
        "agents:error-object": Requirement(
            "Every refusal is one error object with the status and a message.", NUMBERED
        ),
        "agents:every-mistake-at-once": Requirement(
            "Everything that is wrong with a message or a query is told in one answer.", NUMBERED
        ),
        "agents:held-and-rejecting": Requirement(
            "An agent that waits for a person and takes no message says for which approval, and until when.", NUMBERED
        ),
        "agents:hold": Requirement(
            "A held answer has no content but its calls and approval, and the rest of the turn is then in the history.",
            NUMBERED,
        ),
        "agents:hold-stream": Requirement("A held stream ends with its calls and the approval.", NUMBERED),
        "agents:idempotency": Requirement(
            "A message with an idempotency key is answered once for each agent.", NUMBERED
        ),
        "agents:ids-by-reservation": Requirement(
            "Rows have whole numbers, unique for a tenant and an agent and in the order of reservation.", NUMBERED
        ),
        "agents:invalid-message": Requirement(
            "A message that is missing, empty or no text is a 400 in the published words.", NUMBERED
        ),
        "agents:model-failure": Requirement(
            "A model that fails is a 500 in the published words, and in a stream an error event that ends it.", NUMBERED
        ),
        "agents:never-done-marker": Requirement("Every data line of an agent's stream is JSON.", NUMBERED),
        "agents:new-conversation": Requirement(
            "A message without a conversation begins one, and the answer says which.", NUMBERED
        ),
        "agents:page-size": Requirement("A page has 50 rows unless 1 to 200 are asked for.", NUMBERED),
        "agents:paging": Requirement(
            "A page is ascending: the newest rows, those before an id, or the oldest behind one.",
            NUMBERED,
        ),
        "agents:published-examples": Requirement(
            "The published requests to an agent are answered as published.", NUMBERED
        ),
        "agents:rate-limited": Requirement(
            "An agent that takes no further message now answers 429 and says when to come back.", NUMBERED
        ),
        "agents:resumable": Requirement(
            "An agent's stream that broke off goes on at any gateway without a gap or a repeat.", NUMBERED
        ),
        "agents:secrets-are-masked": Requirement(
            "Arguments in an agent's history are shown without their secrets.", NUMBERED
        ),
        "agents:stream": Requirement(
            "An agent's stream is its row's id, pieces of the answer and the whole answer, which the pieces are.",
            NUMBERED,
        ),
        "agents:tenants-apart": Requirement(
            "The same agent and the same conversation id of two tenants are two histories.", NUMBERED
        ),
        "agents:tool-rows": Requirement(
            "Calls and their results are rows of their own between the message and the answer.", NUMBERED
        ),
        "agents:unknown-agent": Requirement(
            "An agent that does not exist, or is not for the key, is a 404 by every method.", NUMBERED
        ),
        "agents:user-row-first": Requirement(
            "The message is in the history before there is an answer, and every row keeps its number.", NUMBERED
        ),
        "agents:whole-answer": Requirement("A whole answer is the row that it becomes.", NUMBERED),
        "alerts:runbook": Requirement("Every alert says where to look and what to do, and leads there.", ALERTS),
        "alerts:tried": Requirement("Every alert fires in time, with what it says, and not while all is well.", ALERTS),
        "approvals:audited": Requirement(
            "Every request, decision and end of a hold is noted for good, with who, what, when and from where.", NATIVE
        ),
        "approvals:batch": Requirement(
            "What a rule wants decided together is decided in one answer or not at all.", POLICIES
        ),
        "approvals:changed-tool-is-refused": Requirement(
            "Arguments of a held call cannot be edited once its tool's definition is another one.", NATIVE
        ),
        "approvals:decide-over-http": Requirement(
            "A decision over HTTP is stored with who, when and from where, noted in the audit and announced.", NATIVE
        ),
        "approvals:edited-arguments": Requirement(
            "Edited arguments satisfy the tool's schema and the rules, and are stored beside the originals.", NATIVE
        ),
        "approvals:foreign-is-missing": Requirement(
            "Another tenant's approval cannot be told from one that does not exist, by any route.", NATIVE
        ),
        "approvals:from-a-terminal": Requirement("The command lists, shows, approves and denies what is held.", HOLDS),
        "approvals:list": Requirement("Approvals are listed newest first, by status and in pages.", NATIVE),
        "approvals:one-winner": Requirement(
            "Of any number of decisions at once on several gateways one wins, and the others are told which.", NATIVE
        ),
        "approvals:partial-decisions-stay-open": Requirement(
            "A decision of some calls leaves the others of their hold open.", NATIVE
        ),
        "approvals:scope": Requirement(
            "Only a key with the scope that the rule names decides what it holds.", POLICIES
        ),
        "approvals:secrets-are-masked": Requirement(
            "A secret argument is shown by no route, and runs as it was unless somebody changes it.", NATIVE
        ),
        "approvals:shown-as-it-will-run": Requirement(
            "An approval shows each call exactly as it will run, with a sentence for people and its end.", NATIVE
        ),
        "attempt:claimed-has-no-message": Requirement(
            "An attempt that a worker claimed is never published, so nobody works on it beside that worker.", DYING
        ),
        "attempt:gap-stops-the-showing": Requirement(
            "After a missing frame nothing more is shown until the closing event says how the answer goes on.", CLASSIC
        ),
        "attempt:lost-turn-is-told": Requirement(
            "A turn that somebody worked on and that fell silent ends with an explicit error and is stopped.", DYING
        ),
        "attempt:newest-is-followed": Requirement(
            "Of a newer attempt a client is shown what follows what it has, as long as both tell the same.", DURABLE
        ),
        "attempt:one-is-shown": Requirement(
            "A client sees one attempt's text, in order and without repeats: that of the attempt seen first.", CLASSIC
        ),
        "attempt:only-a-prefix-is-continued": Requirement(
            "Another attempt's answer follows only if it begins with what was shown; else there is an explicit error.",
            CLASSIC,
        ),
        "attempt:redelivery-has-a-number-of-its-own": Requirement(
            "A redelivered job works under an attempt that no earlier delivery used.", DYING
        ),
        "attempt:steps-follow-each-other": Requirement(
            "A step is shown only behind exactly what was shown of the one before; the closing event has the rest.",
            CLASSIC,
        ),
        "attempt:stored-turn-is-looked-for": Requirement(
            "After a reconnect, or 15 s without a sign of life, the gateway looks for the turn in the store.", CLASSIC
        ),
        "attempt:waiting-is-not-death": Requirement(
            "A turn that waits in a queue is not taken for lost before its budget is spent.", DYING
        ),
        "audit:every-change": Requirement(
            "Every change of a key or a tenant is noted with who made it, and without secrets.", KEYS_OF
        ),
        "background:accepted-once-stored": Requirement(
            "A background run is answered 202 once it is stored, and can then be shown and followed.", NATIVE
        ),
        "background:durable": Requirement(
            "A background run is durable, whatever its agent says; one that asks to be classic is refused.", NATIVE
        ),
        "backpressure:max-wait": Requirement(
            "A request may say how long it waits, in a header or in its body.", WAITING
        ),
        "bootstrap:drift-is-refused": Requirement(
            "Streams or consumers that differ in a way no update heals are all named, and nothing is changed.", MACHINES
        ),
        "bootstrap:idempotent": Requirement("A second bootstrap changes nothing.", MACHINES),
        "bootstrap:moves-old-conversations": Requirement(
            "Bootstrap gives an earlier release's conversations the names of this one, once, with all they have.",
            MACHINES,
        ),
        "bus:acknowledgements-that-never-come": Requirement(
            "A publication whose acknowledgement never comes ends in time and leaves no slot taken.", NATS_PY
        ),
        "bus:cancelled-flush": Requirement("A cancelled or timed-out flush leaves the client reading.", NATS_PY),
        "bus:close-never-hangs": Requirement(
            "Closing sends what is unsent and waits for no server that has stopped answering.", NATS_PY
        ),
        "bus:duplicate-is-stored-once": Requirement(
            "A publication repeated under its id is stored once and reported as a duplicate.",
            "docs/wire.md: ids that make twice the same as once",
        ),
        "bus:flush-is-a-barrier": Requirement(
            "A flush returns after everything queued before it has reached the server and come back.", NATS_PY
        ),
        "bus:frozen-server-is-noticed": Requirement(
            "A server that stops answering without closing the connection is noticed, and so is its return.", NATS_PY
        ),
        "bus:nothing-is-buffered-while-away": Requirement(
            "Nothing published while disconnected is kept and sent later behind the caller's back.", NATS_PY
        ),
        "bus:publication-is-retried-under-its-id": Requirement(
            "A publication that is not acknowledged is sent again under the same id until its time is up.", DYING
        ),
        "bus:reconnects-without-end": Requirement(
            "No number of failed reconnects and no error on the way back closes the client for ever.", NATS_PY
        ),
        "bus:subjects-cannot-be-injected": Requirement(
            "Nothing that could end a control line or widen a subject reaches the wire.", "NATS client protocol"
        ),
        "bus:unsent-is-bounded": Requirement(
            "What waits for a server that does not read is bounded; beyond it publishing is refused.", NATS_PY
        ),
        "busy:cancel-previous": Requirement(
            "With `cancel_previous` a new message ends the turn that runs before it, and what that has not begun.",
            AGENTS,
        ),
        "busy:reject": Requirement(
            "With `on_busy: reject` a message to a conversation whose turn runs is a 409.", AGENTS
        ),
        "cancel:classic-from-any-gateway": Requirement(
            "A classic turn is cancelled through any gateway, by its own tenant only.", NATIVE
        ),
        "cancel:held": Requirement("A cancel of a held turn cancels its approval, and nothing of it runs.", NATIVE),
        "cancel:idempotent": Requirement(
            "A turn may be cancelled any number of times, and one that has ended stays as it ended.", NATIVE
        ),
        "cancel:no-call-begins-after-it": Requirement(
            "A cancel wins every call that has not begun before it answers, and names those that have.", NATIVE
        ),
        "cancel:told-to-its-client": Requirement(
            "The client of a turn that somebody stopped stays connected until the closing event tells it.", NATIVE
        ),
        "cancel:waiting": Requirement(
            "A turn that waits behind another is cancelled through any gateway and never runs.", NATIVE
        ),
        "catalog:all-mistakes-at-once": Requirement(
            "A wrong catalog is refused with every mistake and its place.", "docs/catalog.md"
        ),
        "catalog:no-dropped-stream": Requirement(
            "What runs goes on to its end although the catalog no longer has its model, agent or group.", MACHINES
        ),
        "catalog:pools-have-queues": Requirement(
            "A catalog that names pools without queues is refused until bootstrap has made them.", MACHINES
        ),
        "catalog:prompt-places": Requirement(
            "Every place of an agent's prompt is filled by a value that its schema names.", "docs/catalog.md"
        ),
        "catalog:reload": Requirement(
            "A changed catalog serves without a restart; a bad one leaves the old one serving.", "docs/catalog.md"
        ),
        "classic:cancel-before-work": Requirement(
            "A job that comes after its cancel is answered without asking the model's provider.", DYING
        ),
        "classic:cancel-is-repeated": Requirement(
            "A turn whose client is gone is cancelled every second until it has ended, through an outage of the bus.",
            DYING,
        ),
        "classic:carry-is-untouched": Requirement(
            "The state that travels with a job comes back byte for byte from whoever worked on it.", CLASSIC
        ),
        "classic:first-result-wins": Requirement(
            "Of several results of a step the first one counts; a late or repeated one changes nothing.", DYING
        ),
        "classic:frames-are-numbered": Requirement("Deltas go out as frames numbered from 1 without gaps.", WIRE),
        "classic:hand-back-on-drain": Requirement(
            "A job that outlasts its worker's drain is handed back as it came and costs no delivery.",
            DYING,
        ),
        "classic:large-messages-are-parcels": Requirement(
            "What is too large for a message is stored and travels as a reference.", WIRE
        ),
        "classic:one-ending": Requirement(
            "Whatever events come in whatever order, a turn ends at most once, and decided states stay decided.", PURE
        ),
        "classic:result-before-acknowledgement": Requirement(
            "A worker that stumbles anywhere still delivers one result before it acknowledges its job.",
            DYING,
        ),
        "classic:sign-of-life": Requirement(
            "A job that is quiet says every few seconds that it lives, and that keeps its turn open.", CLASSIC
        ),
        "classic:silent-gateway": Requirement(
            "The job of a gateway that has been silent for ten seconds is cancelled.", DYING
        ),
        "classic:table-is-total": Requirement("Every state of a turn has a tested answer to every event.", PURE),
        "classic:too-many-hand-backs": Requirement("A step that is handed back too often fails its turn.", DYING),
        "cli:completion": Requirement("A shell completes verbs, options, choices and files.", OPERATING),
        "cli:json": Requirement(
            "Every verb with a result prints it as one JSON document where it is asked to.", OPERATING
        ),
        "clients:a-broken-stream-raises": Requirement(
            "A stream that breaks off raises in every client of ours and never passes for a complete answer.", CLIENTS
        ),
        "clients:ai-sdk": Requirement(
            "The AI SDK reads answers, streams, tools and errors through its provider, and chats by its own transport.",
            CLIENTS,
        ),
        "clients:documented": Requirement("The page about clients names the versions that the suite runs.", CLIENTS),
        "clients:error-classes": Requirement(
            "Each client raises the class of error that a refusal's status promises, with the refusal's message in it.",
            CLIENTS,
        ),
        "clients:langchain": Requirement(
            "LangChain's ChatOpenAI reads answers and streams, binds tools and gets structured output.", CLIENTS
        ),
        "clients:litellm": Requirement("The LiteLLM SDK reads answers, streams, tools and reasoning.", CLIENTS),
        "clients:openai-node": Requirement(
            "The OpenAI SDK for Node.js reads answers and streams, runs its own tools and answers holds.", CLIENTS
        ),
        "clients:openai-python": Requirement(
            "The OpenAI SDK for Python finds every field that its types promise, in answers and in streams.",
            CLIENTS,
        ),
        "clients:published-examples": Requirement(
            "The examples that the APIs' publishers give run as they are, once host, key and ids are put in.", CLIENTS
        ),
        "clients:pydantic-ai": Requirement(
            "An answer passes the validation of pydantic-ai, whose loop runs its own tools.", CLIENTS
        ),
        "clients:retries": Requirement(
            "The OpenAI SDKs repeat what failed and may be repeated, and nothing else.", CLIENTS
        ),
        "clients:waits-out-a-429": Requirement(
            "The OpenAI SDK waits as long as a 429 says and then succeeds.", CLIENTS
        ),
        "cluster:view": Requirement(
            "Every gateway tells the same of who is there, what waits and what is well, and nothing of any tenant.",
            NATIVE,
        ),
        "completions:client-tools": Requirement(
            "The caller's own tools reach the model, and their calls and results are read back.", OPENAI
        ),
        "completions:conversation-is-named": Requirement(
            "An answer names its conversation in body and header, and none when none is kept.", SEED
        ),
        "completions:files": Requirement(
            "Images and files in a message reach the model with their bytes or by their address, as do those of a "
            "stored conversation.",
            OPENAI,
        ),
        "completions:foreign-features-are-refused": Requirement(
            "Sound and the ids of stored files are refused with a sentence that names them, never dropped.", OPENAI
        ),
        "completions:group-is-a-uuid": Requirement(
            "A group is named by a UUID; another form is a mistake and an unknown one is not found.", SEED
        ),
        "completions:honoured-fields": Requirement(
            "Every field that is accepted reaches the provider as it was given.", OPENAI
        ),
        "completions:logprobs": Requirement(
            "How likely each token was is told whole, and streamed beside its text.", OPENAI
        ),
        "completions:metadata-is-kept": Requirement(
            "Metadata that means nothing here is kept with the turn, within a bound.", OPENAI
        ),
        "completions:newer-bound-wins": Requirement(
            "Of the two bounds on tokens the newer field counts, and the provider is sent one.", OPENAI
        ),
        "completions:only-new-messages": Requirement(
            "With a stored conversation only what follows the request's last answer is new.", CLASSIC
        ),
        "completions:only-where-it-can-be": Requirement(
            "Several choices and token probabilities are refused of durable turns and where tools run here.", OPENAI
        ),
        "completions:reasoning-is-taken-back": Requirement(
            "A client may send the reasoning of an earlier answer back with it.", OPENAI
        ),
        "completions:request-id-is-echoed": Requirement(
            "The caller's own id in the metadata comes back with the answer.", SEED
        ),
        "completions:response-format": Requirement(
            "A JSON object, or JSON that satisfies a schema, is asked of the model as it was asked for.", OPENAI
        ),
        "completions:seeds-examples": Requirement(
            "Both examples of the first published API are answered as they stand, whole and streamed.", SEED
        ),
        "completions:several-choices": Requirement(
            "Of several choices the first is streamed, the others come whole at the end, each with its finish reason.",
            OPENAI,
        ),
        "completions:system-text-is-appended": Requirement(
            "A client's system text follows the agent's own prompt; a bare model is shown only what the client said.",
            CLASSIC,
        ),
        "completions:unstored-answer-says-so": Requirement(
            "An answer that could not be stored says so, whole and streamed.", DYING
        ),
        "completions:what-the-model-can": Requirement(
            "What the chosen model cannot do is refused by its field, and a group asks only models that can.", OPENAI
        ),
        "completions:whole-answer": Requirement(
            "A whole answer is one `chat.completion`: the model echoed, one choice, its finish reason, the usage.",
            OPENAI,
        ),
        "contract:bad-bytes": Requirement(
            "Bytes that are no message violate the contract and raise nothing else.", WIRE
        ),
        "contract:golden-bytes": Requirement(
            "Every kind of message has recorded bytes, is written as them and read from them.", WIRE
        ),
        "contract:newer-fields-are-ignored": Requirement("A reader ignores fields that a newer release adds.", WIRE),
        "conversation:claims-outlive-deletion": Requirement(
            "The id of a message stays taken when its conversation is deleted.", NATIVE
        ),
        "conversation:continued-while-running": Requirement(
            "A conversation is continued by its id at any gateway, also while an earlier turn still runs.", CLASSIC
        ),
        "conversation:created-and-released-in-any-order": Requirement(
            "A conversation's creation and the end of its first turn leave it unlocked, whichever is written first.",
            DYING,
        ),
        "conversation:deleted-for-good": Requirement(
            "Nothing brings a deleted conversation or turn back, whoever comes late.", NATIVE
        ),
        "conversation:deleted-with-its-files": Requirement(
            "Files and long results are removed with the conversation that they belong to, and nothing else is.", NATIVE
        ),
        "conversation:deleted-with-its-holds": Requirement(
            "The approvals of a deleted conversation are gone, and none that is answered meanwhile runs anything.",
            NATIVE,
        ),
        "conversation:deleted-with-its-turns": Requirement(
            "The turns of a deleted conversation are in no list, no search and no answer any more.", NATIVE
        ),
        "conversation:deletion-ends-turns-first": Requirement(
            "Turns that run, wait or are held end as cancelled, and are told so, before their conversation is deleted.",
            NATIVE,
        ),
        "conversation:deletion-is-finished-by-the-sweep": Requirement(
            "A deletion whose gateway dies, or that somebody writes after, is finished by the sweep.", DYING
        ),
        "conversation:durable-turns-keep-their-lock": Requirement(
            "A durable turn keeps its conversation for as long as it may take, whether or not anybody sweeps.", DYING
        ),
        "conversation:foreign-is-unknown": Requirement(
            "Another tenant's conversation is answered exactly as one that never was, and stays untouched.",
            "promise P12",
        ),
        "conversation:history-window": Requirement(
            "The model is shown the newest whole turns that fit the agent's window, oldest first.", "docs/catalog.md"
        ),
        "conversation:ids-are-a-tenants-own": Requirement(
            "Two tenants may use the same conversation id, and neither learns of the other's.", "promise P12"
        ),
        "conversation:keys-of-one-tenant": Requirement(
            "A key reaches only the models, agents and conversations that it may name, by no default anything else.",
            NATIVE,
        ),
        "conversation:listed-newest-first": Requirement(
            "Conversations are listed in pages, those begun last first.", NATIVE
        ),
        "conversation:lock-runs-out": Requirement(
            "A lock whose holder died runs out, and goes to the first who waits before it goes to who asks.", DYING
        ),
        "conversation:made-under-a-clients-id": Requirement(
            "Of many starts under an id that a client chose one makes the conversation, and the others wait for it.",
            CLASSIC,
        ),
        "conversation:messages-in-pages": Requirement(
            "The messages of a conversation are shown in their order, from the latest page back.", NATIVE
        ),
        "conversation:one-turn-at-a-time": Requirement(
            "Two turns never hold a conversation's lock at once, and every one that waits runs once.", CLASSIC
        ),
        "conversation:promotion-is-repeated": Requirement(
            "A promotion that nobody takes up is published again after five seconds, and passed on at last.", DYING
        ),
        "conversation:queue-in-order": Requirement(
            "Turns of one conversation queue in the order of their arrival, up to a bound, and run in it.", CLASSIC
        ),
        "conversation:renewed-by-its-gateway": Requirement(
            "The gateway that holds the client renews the lock of its turn, and only of a turn that was started.", DYING
        ),
        "conversation:searched-by-its-words": Requirement(
            "A search finds conversations in whose title or messages every word is, whatever its case and accents.",
            NATIVE,
        ),
        "conversation:stored-before-done": Requirement(
            "A turn can be read from MongoDB before its answer has ended.", CLASSIC
        ),
        "conversation:sweep-frees-it": Requirement(
            "A sweep frees a lock that ran out and promotes the first who waits behind it, once.", DYING
        ),
        "conversation:title-and-metadata": Requirement(
            "A conversation's title and metadata are kept as they were given, and every mistake in them is told.",
            NATIVE,
        ),
        "conversation:waiting-turn-can-leave": Requirement(
            "A turn that waits can leave its queue, and one that left never runs.", CLASSIC
        ),
        "dashboards:generated": Requirement(
            "What Grafana and Prometheus read is written from code, in step with it.", DASHBOARDS
        ),
        "dashboards:real-series": Requirement(
            "Panels and rules ask for series and labels that services show, and every metric is seen somewhere.",
            DASHBOARDS,
        ),
        "dead-letter:one-reference": Requirement(
            "A message that is given up becomes exactly one dead letter: a reference with a reason, never content.",
            WIRE,
        ),
        "dead:commands": Requirement(
            "An operator lists, shows, requeues and drops dead letters from the command line.", OPERATING
        ),
        "dead:requeue": Requirement(
            "A turn that was given up goes on from where it stood once it is requeued, and repeats no effect.",
            NATIVE,
        ),
        "dead:routes": Requirement(
            "An operator lists, shows, requeues and drops what was given up, of all tenants and without content.",
            NATIVE,
        ),
        "doctor:names": Requirement("The doctor names each thing that is broken, and what to do about it.", OPERATING),
        "doctor:well": Requirement("The doctor finds nothing wrong with a cluster that is well.", OPERATING),
        "drain:durable-streams-move": Requirement(
            "A gateway that stops has the clients of durable streams come back elsewhere, spread over some seconds.",
            "promise P6",
        ),
        "drain:workers-hand-over": Requirement(
            "Orchestrators and workers that stop under load finish or hand over what they have, and no turn is lost.",
            "promise P6",
        ),
        "durable:ambiguous-insert": Requirement(
            "An insert whose outcome is not known is done again under the same id, and one turn comes of it.", DURABLE
        ),
        "durable:asked-for": Requirement(
            "A turn is durable by its request, else by its agent, and always with an idempotency key.", DURABLE
        ),
        "durable:client-leaves": Requirement(
            "A durable turn goes on without its client; a classic one is cancelled.", DURABLE
        ),
        "durable:client-leaves-meanwhile": Requirement(
            "A client that leaves while its durable turn is being accepted leaves an accepted turn.", DURABLE
        ),
        "durable:gateway-dies": Requirement(
            "A request whose gateway dies while it accepts it runs once for its key, and another gateway answers it.",
            DURABLE,
        ),
        "durable:refused-leaves-nothing": Requirement(
            "A durable turn that a full queue refuses is not stored any more, and its key is free.", DURABLE
        ),
        "durable:sdk": Requirement("The OpenAI SDK reads a durable answer as any other, whole and streamed.", OPENAI),
        "durable:status-line-at-once": Requirement(
            "The status line of a durable stream is sent as soon as the turn is stored.", DURABLE
        ),
        "durable:stored-then-published": Requirement(
            "The whole of a durable turn is stored by one write before its start is published.", DURABLE
        ),
        "durable:unknown-conversation": Requirement(
            "A conversation that does not exist is told before anything of a durable turn is stored.", DURABLE
        ),
        "durable:unknown-publication-is-accepted": Requirement(
            "A stored turn is accepted whatever becomes of its start's publication.", DURABLE
        ),
        "durable:visible-at-once": Requirement(
            "A durable turn is shown at every gateway as soon as it is accepted.", NATIVE
        ),
        "events:gap-is-told": Requirement(
            "A reader whose position is not kept any more, or is of another life of the stream, is told so first, and "
            "then what is kept.",
            NATIVE,
        ),
        "events:no-gap-and-no-repeat": Requirement(
            "A reader that comes back with `Last-Event-ID`, at any gateway, is told everything since, once, in order.",
            NATIVE,
        ),
        "events:slow-readers-are-cut": Requirement(
            "A reader that does not read loses its connection, and the others are told as before.", NATIVE
        ),
        "events:tell-without-content": Requirement(
            "A tenant's readers are told as it happens what becomes of executions and approvals, never content.", NATIVE
        ),
        "events:who-may-know": Requirement(
            "A reader is told only of its tenant, of models that its key may name, and of approvals if it may list "
            "them; a key that is revoked is told nothing more.",
            NATIVE,
        ),
        "executions:foreign-is-missing": Requirement(
            "Another tenant's execution cannot be told from one that does not exist, by any route.", NATIVE
        ),
        "executions:list": Requirement(
            "Executions are listed newest first, by status and conversation and in pages, as far as the key may see.",
            NATIVE,
        ),
        "executions:native-events": Requirement(
            "An execution's events say which step they belong to, and its last one how it stands.", NATIVE
        ),
        "executions:shown": Requirement(
            "An execution tells its status, its steps and what became of each call.", NATIVE
        ),
        "executions:stream": Requirement(
            "Any number of readers follow an execution from its beginning, whether it runs, is held or has ended.",
            NATIVE,
        ),
        "failpoint:off-unless-armed": Requirement(
            "A failpoint does nothing unless it was armed, and then acts once, on the pass that was asked for.",
            "docs/settings.md",
        ),
        "fair:noisy-lane": Requirement(
            "A lane with twenty times the load adds less than one service time to what another waits.", FAIRNESS
        ),
        "fair:priority-of-the-start": Requirement("A turn's jobs go into the queues of its priority.", FAIRNESS),
        "fair:weights-hold-under-saturation": Requirement(
            "Under saturation priorities get their weights, whatever lanes each has.", FAIRNESS
        ),
        "fair:work-conserving": Requirement("No slot stands idle while any lane has work.", FAIRNESS),
        "fairness:priority": Requirement("A request may be less urgent than its key, and never more.", FAIRNESS),
        "fault:bus-down": Requirement(
            "With NATS down new turns get 503 and `Retry-After` within 3 s, and are taken again when it is back.",
            DYING,
        ),
        "fault:cut-before-the-first-delta": Requirement(
            "A turn whose worker or orchestrator dies before the first delta is answered.", DYING
        ),
        "fault:killed-process-comes-back": Requirement(
            "Any one process that is killed is started again, and the cluster serves by itself.", DYING
        ),
        "fault:network": Requirement(
            "Connections to NATS and MongoDB that are slow, held, broken or half open cost no turn.", DYING
        ),
        "fault:queue-full": Requirement(
            "A full queue is 429 with `Retry-After`, and nothing is left behind of the turn.", CLASSIC
        ),
        "fault:store-down": Requirement(
            "With MongoDB down new turns get 503 and `Retry-After` within 3 s, and are taken again when it is back.",
            DYING,
        ),
        "fault:store-fails-in-mid-turn": Requirement(
            "A store that fails while a turn runs costs the record and not the answer.", DYING
        ),
        "files:kinds": Requirement(
            "A PNG, JPEG, GIF, WebP, PDF or UTF-8 text is taken as a data URI, the first five also by address.", OPENAI
        ),
        "files:limits": Requirement(
            "An image or a PDF has at most 10 MiB, a text 256 KiB, and what is none of them is refused.", OPENAI
        ),
        "files:public-addresses": Requirement(
            "The address of a file is https and names a public host in a way that all read alike.", OPENAI
        ),
        "files:stored-once": Requirement(
            "The same bytes are stored once in a conversation, however often they are sent.", OPENAI
        ),
        "health:alive": Requirement(
            "A process says that it is alive as soon as its loop turns, ready or not.", "docs/runbook.md"
        ),
        "health:dependencies": Requirement(
            "Health names each dependency with its state and its reason, from its last real operation.",
            "docs/runbook.md",
        ),
        "health:ready": Requirement(
            "A process is ready once it has started and until it stops, whatever its dependencies do.",
            "docs/runbook.md",
        ),
        "held:queue": Requirement("With `on_held: queue` a new message waits until the held turn has ended.", AGENTS),
        "held:reject": Requirement(
            "With `on_held: reject` a new message is a 409 that names the approval in its way and when that ends.",
            AGENTS,
        ),
        "held:supersede": Requirement(
            "With `on_held: supersede` a new message cancels an open hold, and nothing of it begins any more.", AGENTS
        ),
        "hold:altered-is-refused": Requirement(
            "A held call that was altered in the store, or whose tool was defined anew, is refused and told so.", HOLDS
        ),
        "hold:approved-runs-at-once": Requirement(
            "An approved call runs while other calls of its step are still held.", HOLDS
        ),
        "hold:ends-the-stream": Requirement(
            "A turn that holds ends its answer, stops nothing, and is found when its closing event was missed.", CLASSIC
        ),
        "hold:expiry-is-a-denial": Requirement(
            "A hold that nobody decides is a denial after which its turn goes on and its conversation is free.", HOLDS
        ),
        "hold:named-where-it-is-in-the-way": Requirement(
            "A message that a hold keeps out is answered with the approval and when it expires.", NATIVE
        ),
        "hold:shown-as-tool-calls": Requirement(
            "A held answer has no content, its calls under their execution ids, and the approval.", SEED
        ),
        "hold:streamed-answer": Requirement(
            "A held stream ends with the calls, one finish reason in the chunk that names the approval, and `[DONE]`.",
            SEED,
        ),
        "hold:ungated-runs-at-once": Requirement(
            "Of one step the calls that no rule holds run at once, and only the rest is held.", HOLDS
        ),
        "hold:whole-answer": Requirement(
            "A held answer has the finish reason `tool_calls`, execution ids as call ids, and names its approval.", SEED
        ),
        "http:acted-turn-is-not-retried": Requirement(
            "A failure after which a retry could run a tool once more tells clients not to retry.", OPENAI
        ),
        "http:all-mistakes-at-once": Requirement(
            "Every mistake of a body is told at once, each with its field, and the first one as `param`.", OPENAI
        ),
        "http:anonymous-principal": Requirement(
            "A request without a credential is the anonymous principal's where there is one, and a wrong one never is.",
            "docs/settings.md",
        ),
        "http:body-is-bounded": Requirement(
            "A body above the bound is 413, whether its length was told or it came in chunks.", "RFC 9110, 413"
        ),
        "http:body-is-json": Requirement("A body that is not JSON in UTF-8, or is encoded, is 415.", "RFC 9110, 415"),
        "http:checks-in-order": Requirement(
            "Headers are checked before the credential, and that before body, schema and model.", SEED
        ),
        "http:crash-is-a-fixed-sentence": Requirement(
            "What nobody foresaw is a fixed sentence with the request's id, never an internal text.", "promise P13"
        ),
        "http:credential-one-answer": Requirement(
            "A missing, malformed, unknown, revoked and expired credential get one and the same 401.", "RFC 6750"
        ),
        "http:credential-scope": Requirement("A key without the scope is 403.", OPENAI),
        "http:draining-is-told": Requirement(
            "A gateway that stops lets open turns finish, refuses new ones, and ends the rest with an explicit error.",
            "promise P6",
        ),
        "http:error-body": Requirement(
            "Every error is one object with message, type, code, param and request id, and each code has a fixed type.",
            OPENAI,
        ),
        "http:error-classes": Requirement(
            "The OpenAI SDK raises its own class for each kind of refusal and failure.", OPENAI
        ),
        "http:half-sent-requests": Requirement(
            "Headers, a body or a next request that does not arrive in time ends the connection.", "promise P15"
        ),
        "http:request-id": Requirement(
            "A client's request id is kept if it is well-formed and replaced if not, and stands in header and error.",
            OPENAI,
        ),
        "http:server-timing": Requirement("An answer says where its time went.", "Server Timing (W3C)"),
        "http:stopped-turn-is-not-retried": Requirement(
            "A turn that somebody stopped is a 409 that tells clients not to repeat it.", OPENAI
        ),
        "http:strict-json": Requirement(
            "JSON that another parser might read differently is refused: NaN, lone surrogates, repeated names.",
            "RFC 8259",
        ),
        "http:too-large-without-files": Requirement(
            "What is new in a request has a bound of its own, which files do not count towards.", OPENAI
        ),
        "http:unknown-fields-are-ignored": Requirement("A field that nobody knows is ignored.", OPENAI),
        "http:unknown-routes": Requirement(
            "An unknown path is 404 and a wrong method 405 with `Allow`, in the same error body.", "RFC 9110, 405"
        ),
        "http:upstream-limit-keeps-its-time": Requirement(
            "A provider's limit reaches the client as 429 with the time that the provider asked for.", OPENAI
        ),
        "idempotency:a-refusal-is-not-kept": Requirement(
            "A key whose request was refused before anything ran is free for another try.", KEYS
        ),
        "idempotency:another-body-is-refused": Requirement(
            "An idempotency key that comes with another body is 422.", KEYS
        ),
        "idempotency:key-is-checked": Requirement(
            "An idempotency key that is not 1 to 255 printable ASCII characters is 400.", KEYS
        ),
        "idempotency:one-turn": Requirement(
            "Any number of requests with one key at once at several gateways run one turn, and all get its answer.",
            KEYS,
        ),
        "idempotency:pending": Requirement(
            "A key whose turn is not stored yet is waited for, and then told with 409 and when to come back.", KEYS
        ),
        "idempotency:replayed": Requirement(
            "The same key and body attach to the running turn or replay its result, and the answer says so.", KEYS
        ),
        "idempotency:resume": Requirement(
            "A decision is made once and answered in the same way, whatever idempotency key comes with it.", NATIVE
        ),
        "idempotency:scope": Requirement("A key stands for one request of one tenant on one route.", KEYS),
        "idempotency:taken-over": Requirement(
            "A claim whose gateway never stored its turn is taken over under the same turn id.", DURABLE
        ),
        "kernel:approvals-are-denied": Requirement(
            "A call that needs a person is denied with a reason: this API has no way to answer.", KERNEL
        ),
        "kernel:chunks": Requirement(
            "Every event but the last has an id, object, time, model and fingerprint, and one choice with a delta.",
            KERNEL,
        ),
        "kernel:defaults": Requirement(
            "Without them stream is true, temperature 0.1, max_tokens 2000 and the model the configured default.",
            KERNEL,
        ),
        "kernel:errors": Requirement(
            "A request that is refused or fails before the first byte gets its status and the published error body.",
            KERNEL,
        ),
        "kernel:every-ending-is-stop": Requirement(
            "The last chunk's finish reason is stop however the model ended, and [DONE] follows exactly once.", KERNEL
        ),
        "kernel:failure-in-a-stream": Requirement(
            "A failure behind the first byte is a last chunk with an empty delta and an error, then [DONE].", KERNEL
        ),
        "kernel:published-examples": Requirement(
            "The published request, curl and Python reader work as they stand, without a key where that is allowed.",
            KERNEL,
        ),
        "kernel:request": Requirement(
            "The published request is taken field by field, and everything that is wrong with one is named.", KERNEL
        ),
        "kernel:retrieval": Requirement(
            "Passages that fit the last user message follow the system prompt, which else stays as it was.", KERNEL
        ),
        "kernel:roles": Requirement(
            "A known role's prompt and setting win; an unknown one changes no words, retrieves nothing and is told.",
            KERNEL,
        ),
        "kernel:whole-answer": Requirement("With stream false the answer is one chat.completion object.", KERNEL),
        "key:shown-once": Requirement(
            "A key's text is shown once; what is kept is a digest under a secret.", "SECURITY.md"
        ),
        "keys:address-limit": Requirement(
            "An address that guesses keys is told to wait, in the dialect it speaks.", KEYS_OF
        ),
        "keys:changes-are-told": Requirement(
            "Every write of a key is told to whoever asks what changed since.", KEYS_OF
        ),
        "keys:cost-nothing-while-unchanged": Requirement(
            "One question for changes keeps every known key valid.", KEYS_OF
        ),
        "keys:foreign-is-unknown": Requirement("A foreign key is answered as one that never was.", KEYS_OF),
        "keys:native-routes": Requirement(
            "Keys are made, shown, changed, rotated and revoked at their own routes, and a key's text is told once.",
            KEYS_OF,
        ),
        "keys:no-escalation": Requirement("No key gives scopes, models or agents that it does not have.", KEYS_OF),
        "keys:operator": Requirement("An operator looks after the keys of every tenant.", KEYS_OF),
        "keys:rotation": Requirement(
            "A rotated key serves for its grace beside a successor that may do the same.", KEYS_OF
        ),
        "knowledge:chunked-on-ingest": Requirement(
            "A document is cut into passages at its headings and pauses, with some overlap, and nothing of it is lost.",
            KNOWLEDGE,
        ),
        "knowledge:command": Requirement(
            "The verb `kitemesh knowledge` stores files with a progress bar, lists documents and removes them.",
            KNOWLEDGE,
        ),
        "knowledge:native-route": Requirement(
            "Documents are stored, listed, shown and removed at /v1/knowledge by keys of the scope admin.", KNOWLEDGE
        ),
        "knowledge:passages-are-data": Requirement(
            "What a passage says reaches a model as a quotation that nothing inside it can end.", KNOWLEDGE
        ),
        "knowledge:per-tenant-and-role": Requirement(
            "A search finds only what the tenant has in the bases of the role, the default one without a role.",
            KNOWLEDGE,
        ),
        "knowledge:query-is-no-expression": Requirement(
            "A query is words: no character in it is an operator of the search.", KNOWLEDGE
        ),
        "knowledge:ranked-with-source": Requirement(
            "The passages that fit best come first, each with its source.", KNOWLEDGE
        ),
        "kubernetes:least-privilege": Requirement(
            "No pod has more rights, secrets or neighbours than it needs.", KUBERNETES
        ),
        "kubernetes:manifests-agree": Requirement(
            "Settings, ports, probes, drain times, secrets and pools of the manifests are those of the code.",
            KUBERNETES,
        ),
        "kubernetes:nats-cluster": Requirement(
            "Three servers of the configuration form a cluster, with TLS and a user for each service.", KUBERNETES
        ),
        "kubernetes:scaling": Requirement(
            "Replicas follow metrics that exist, and no answer takes none of them away.", KUBERNETES
        ),
        "kubernetes:valid": Requirement(
            "Whatever is rendered satisfies the published schemas strictly, and refers to what is there.", KUBERNETES
        ),
        "limits:a-lease-is-given-once": Requirement(
            "A question for leases that is asked again is answered as it was.", LIMITS
        ),
        "limits:concurrency": Requirement("A turn has its slot until it ends, whoever follows it.", LIMITS),
        "limits:dialects": Requirement("Every dialect says that a limit is reached in its own words.", LIMITS),
        "limits:gateways-together-spend-no-more": Requirement(
            "Gateways that lease at once never get more than there is.", LIMITS
        ),
        "limits:headers": Requirement("Whoever has limits is told with every answer what is left of them.", LIMITS),
        "limits:no-slot-leaks": Requirement(
            "No slot is left behind, whatever is refused, cancelled, repeated or fails.", LIMITS
        ),
        "limits:noisy-neighbour": Requirement(
            "A tenant that asks at twenty times its limit costs another little time and no error.", LIMITS
        ),
        "limits:rate": Requirement(
            "A key has its requests a minute, and a refusal says when the next one is let through.", LIMITS
        ),
        "limits:refusals-take-nothing": Requirement("What is refused takes nothing of any limit.", LIMITS),
        "limits:tenant": Requirement("A tenant's limit holds for all its keys together.", LIMITS),
        "limits:tokens": Requirement("Tokens are reserved before a turn and settled after it.", LIMITS),
        "limits:turns-at-once-are-exact": Requirement(
            "Of many turns at once over several gateways exactly as many run as may.", LIMITS
        ),
        "log:no-content": Requirement("No log line repeats what a client or a model said.", "promise P23"),
        "log:no-forged-lines": Requirement("No text can forge or break a log line.", "promise P23"),
        "messages:one-id-one-turn": Requirement(
            "Of any number of messages with one id of their client one becomes a turn; the others store nothing.",
            UI,
        ),
        "metrics:closed-labels": Requirement(
            "A label's value is one of few, whatever clients send: never a tenant, an id or a text.", METRICS
        ),
        "metrics:every-one-counted": Requirement("Every metric that is listed is counted.", METRICS),
        "metrics:queues-agree": Requirement(
            "Queues are asked of their leaders, so that every replica shows the same; unknown is shown as that.",
            METRICS,
        ),
        "models:by-their-raw-id": Requirement(
            "A model is found by its id as it is, slashes and colons included.", OPENAI
        ),
        "models:health": Requirement(
            "Models, groups and agents say whether their upstreams are well.", UPSTREAMS_WATCHED
        ),
        "models:only-the-keys-own": Requirement(
            "A key sees and may name only its own models; any other is unknown.", OPENAI
        ),
        "native:hostile-ids": Requirement(
            "What is no id leads nowhere, before it comes near a subject or a query.", NATIVE
        ),
        "observability:every-alert-in-a-fault": Requirement(
            "Every alert has a real fault, in a run of its own, that makes it fire.", DASHBOARDS
        ),
        "observability:healthy-cluster": Requirement(
            "On a healthy cluster every target is up, every query is understood and no alert fires.", DASHBOARDS
        ),
        "openapi:described-by-what-validates": Requirement(
            "The API's description is made from the models that validate, and lists every refusal.",
            "OpenAPI 3.1",
        ),
        "openapi:docs-page-is-inert": Requirement(
            "The documentation page loads nothing, runs nothing and needs no credential.", "docs/runbook.md"
        ),
        "openapi:every-route": Requirement(
            "Every route of the server is in the OpenAPI document, and nothing else is.", NATIVE
        ),
        "openapi:true": Requirement(
            "Whatever the document offers is answered as it says, with these statuses, types, headers and bodies.",
            NATIVE,
        ),
        "pressure:dropped-before-it-costs": Requirement(
            "Work past its wait or its deadline, or whose caller has gone, costs no model call.", WAITING
        ),
        "pressure:predicted-wait": Requirement(
            "How long work will wait is what waits over what all replicas finish.", WAITING
        ),
        "pressure:refused-at-once": Requirement(
            "A turn that would wait longer than it may is refused at once and told when to come again.", WAITING
        ),
        "promise:P10": Requirement(
            "Of three MongoDB servers the primary may be lost or frozen, and no acknowledged write is lost.",
            "promise P10",
        ),
        "promise:P11": Requirement(
            "A full disk under NATS or MongoDB is told as 503 in time, and heals when there is space again.",
            "promise P11",
        ),
        "promise:P12": Requirement(
            "At every place of the API that takes an id, another tenant's and nobody's get the same answer.",
            "promise P12",
        ),
        "promise:P13": Requirement(
            "Malformed requests never become a 5xx, end the server or show its insides.", "promise P13"
        ),
        "promise:P15": Requirement(
            "A client that does not read is cut in time, holds a bounded amount, and costs the others nothing.",
            "promise P15",
        ),
        "promise:P16": Requirement(
            "When the client is gone the provider's call is stopped within 2 s and the turn is stored as cancelled.",
            "promise P16",
        ),
        "promise:P17": Requirement(
            "A revoked key is refused by every gateway within 5 s, and its text is stored nowhere.", "promise P17"
        ),
        "promise:P18": Requirement(
            "A rate limit holds over three gateways, with a Retry-After right within a second and with the store away.",
            "promise P18",
        ),
        "promise:P20": Requirement(
            "Whatever a provider does, its turn gets an answer or a typed error within the time-outs.", "promise P20"
        ),
        "promise:P21": Requirement(
            "No tool and no webhook connects to an address that its definition does not allow.", "promise P21"
        ),
        "promise:P22": Requirement(
            "Whatever a model says, no tool runs that was not enabled, and none that is held without approval.",
            "promise P22",
        ),
        "promise:P24": Requirement(
            "A message that kills its worker is delivered at most five times; then its turn fails, with a dead letter.",
            "promise P24",
        ),
        "promise:P25": Requirement(
            "After a cancel's answer no call with an effect begins that it does not name.", "promise P25"
        ),
        "promise:P3": Requirement(
            "A worker that stood still for three leases changes nothing when it goes on, and one answer is shown.",
            "promise P3",
        ),
        "promise:P4": Requirement(
            "Of any decisions, ends and deaths of gateways at once one counts, and a call has at most one effect.",
            "promise P4",
        ),
        "promise:P5": Requirement(
            "What reaches a tool is what was approved, and nothing when that was changed meanwhile.", "promise P5"
        ),
        "promise:P6": Requirement(
            "A rolling restart breaks no durable stream, and no classic one looks complete that is not.", "promise P6"
        ),
        "promise:P7": Requirement(
            "NATS that is killed and started again under load costs no turn, and new ones are taken within 5 s.",
            "promise P7",
        ),
        "promise:P8": Requirement(
            "Of three NATS servers any one may be lost, frozen or cut off, and no turn is lost.", "promise P8"
        ),
        "promise:P9": Requirement(
            "Every accepted durable turn ends though the bus has lost its whole store.", "promise P9"
        ),
        "provider:budget": Requirement(
            "A turn's budget stops the provider's call, however steadily it streams.", "promise P20"
        ),
        "provider:files": Requirement(
            "Images and files of a prompt reach the provider whole; of one that is gone the model is told.", OPENAI
        ),
        "provider:keeps-secrets": Requirement(
            "A provider is sent the catalog's key and nothing else that is secret.", "SECURITY.md"
        ),
        "provider:only-a-finish-reason-ends": Requirement(
            "An answer without a finish reason has not ended: it was cut.", OPENAI
        ),
        "provider:retry-after-is-honoured": Requirement(
            "A limit is waited for as long as the provider asks, and told at once if the budget is shorter.",
            "RFC 9110, Retry-After",
        ),
        "provider:retry-before-the-first-delta": Requirement(
            "A failed call is tried again, with pauses and a bound, and never after its first delta.", CLASSIC
        ),
        "pull:credit-is-the-bound": Requirement(
            "A worker is never sent more than it asked for, also after a reconnect or beside a frozen server.", MACHINES
        ),
        "pull:goes-on-by-itself": Requirement(
            "A pull goes on after a reconnect, a silence and a consumer that was away, and never in a busy loop.",
            NATS_PY,
        ),
        "race:approve-and-cancel": Requirement(
            "Approved and cancelled at once, a call runs or never will, as its approval and its turn say.", RACES
        ),
        "race:approve-and-deny": Requirement(
            "Approved and denied at once, one counts and the other is told which.", RACES
        ),
        "race:approve-and-expiry": Requirement(
            "Approved as it runs out, a call runs exactly if the approval was accepted.", RACES
        ),
        "race:approve-and-new-message": Requirement(
            "Approved as a new message comes, a call runs before it or the approval is refused.", RACES
        ),
        "race:approve-twice": Requirement(
            "Approved twice at once at two gateways, a call runs once and both get its continuation.", RACES
        ),
        "race:approved-elsewhere-while-asking": Requirement(
            "Who asked and still waits gets the whole answer when a call is approved elsewhere.", RACES
        ),
        "reattach:refusals": Requirement(
            "Another's stream is unknown and that of a classic turn is gone, and a request to go on starts nothing.",
            DURABLE,
        ),
        "reattach:same-bytes": Requirement(
            "A durable stream is gone on with at any gateway by the bytes that followed, while it runs and afterwards.",
            DURABLE,
        ),
        "resume:another-gateway": Requirement(
            "A resumed turn is followed at any gateway, whichever one its events are addressed to.", SEED
        ),
        "resume:answers-are-checked": Requirement(
            "A resume request with anything wrong in it is refused with every mistake and decides nothing.", SEED
        ),
        "resume:by-content": Requirement(
            "Where frames are not kept any more, a stream goes on behind what its client was shown, from the store.",
            FRAMES,
        ),
        "resume:calls-and-results": Requirement(
            "A step that is told again brings its calls, and what came of those before it, each once and in its place.",
            DURABLE,
        ),
        "resume:decided-once": Requirement(
            "An approval decided otherwise is refused with the decision that won; one that is over is gone.", SEED
        ),
        "resume:durable": Requirement(
            "Neither a client that leaves nor a gateway that stops ends a resumed turn.", SEED
        ),
        "resume:errors-have-no-position": Requirement(
            "An error in a durable stream has no id, so that its client's last one stays good.", FRAMES
        ),
        "resume:exact-while-captured": Requirement(
            "Behind any event follow the very bytes that followed it the first time, as long as its frames are kept.",
            FRAMES,
        ),
        "resume:gap-is-an-error": Requirement(
            "A position from which the answer does not go on is an explicit error that names the execution.", FRAMES
        ),
        "resume:gap-is-read-again": Requirement(
            "What a durable stream misses is read again, and what cannot be is completed by the closing event.", FRAMES
        ),
        "resume:hostile-ids": Requirement(
            "A `Last-Event-ID` that this server never gave out is refused, or shows nothing but the answer.", FRAMES
        ),
        "resume:late-readers": Requirement(
            "Who comes after the end of a turn, or after its hold, is told all of it.", FRAMES
        ),
        "resume:may-hold-again": Requirement("A resumed turn may hold again.", SEED),
        "resume:messages-follow-the-results": Requirement(
            "Messages of an answer stand behind the results as the user's words.", SEED
        ),
        "resume:neither-list-is-denied": Requirement(
            "A held call that an answer neither approves nor denies is denied.", SEED
        ),
        "resume:nothing-is-missed": Requirement(
            "What is said of a resumed turn before, while and after it is attached reaches its client once.", SEED
        ),
        "resume:only-what-follows": Requirement(
            "A resumed answer has what follows the hold, and nothing from before it.", SEED
        ),
        "resume:partial": Requirement(
            "Each held call runs or is denied by itself, and the reason of a denial reaches the model.", SEED
        ),
        "resume:position-at-the-end": Requirement(
            "A client that has some of the events that close a stream is told the others.", FRAMES
        ),
        "resume:position-says-what-was-shown": Requirement(
            "An event's id says how much of its step was shown, up to it.", FRAMES
        ),
        "resume:same-continuation": Requirement(
            "The same decision once more gives the same continuation, live or from the store.", SEED
        ),
        "resume:seeds-examples": Requirement(
            "The resume flow of the first published API works as printed, with two ids pasted.", SEED
        ),
        "resume:several-readers": Requirement(
            "Several readers of one turn are each told all that they miss, and nothing twice.", FRAMES
        ),
        "resume:streamed": Requirement(
            "A continuation is streamed like any answer and says what a whole one says.", SEED
        ),
        "retention:changes-are-applied": Requirement(
            "A changed retention reaches the documents that exist.", RETENTION
        ),
        "retention:old-documents": Requirement(
            "What an earlier release stored gets the date on which it goes.", RETENTION
        ),
        "retention:one-date": Requirement(
            "Each collection has one index by which its documents go, and the old ones are dropped.", RETENTION
        ),
        "retention:per-tenant-and-kind": Requirement("A document goes as its tenant wants it of its kind.", RETENTION),
        "routing:breaker": Requirement(
            "An upstream that keeps failing is left alone until one probe at a time finds it well.", BREAKER
        ),
        "routing:capabilities": Requirement(
            "A model that cannot do what a call needs is not asked while another can.", ROUTING
        ),
        "routing:context-length": Requirement(
            "A prompt goes only to models that take it, and an upstream's refusal of its length is told as such.",
            ROUTING,
        ),
        "routing:cooling": Requirement(
            "An upstream that says when to come again is asked by no job of the runner before.", BREAKER
        ),
        "routing:health": Requirement("Runners name the models whose upstreams are not well.", UPSTREAMS_WATCHED),
        "routing:no-hammering": Requirement("Each upstream is asked once, and only the last one left again.", ROUTING),
        "routing:ordered-fallback": Requirement(
            "Before the first delta the next model of a group answers for one that fails, and never after it.", ROUTING
        ),
        "routing:weights": Requirement(
            "Of models with weights each is tried first as often as its weight says, the same for the same turn.",
            ROUTING,
        ),
        "run-chat:after-idx": Requirement(
            "A conversation's stream can be joined behind the event of an index.",
            UI,
        ),
        "run-chat:answer-and-message": Requirement(
            "One request may answer held calls and say something new: both are heard, and the new turn is told.",
            UI,
        ),
        "run-chat:answered-again": Requirement(
            "An answer that comes again decides nothing, and is answered with the same continuation.",
            UI,
        ),
        "run-chat:approval-answers": Requirement(
            "Parts in the state `approval-responded` decide the held calls; without `approved` a call is denied.",
            UI,
        ),
        "run-chat:closing-event-completes": Requirement(
            "Calls and results that no frame told are told at the end, and so is the text.",
            UI,
        ),
        "run-chat:continuation": Requirement(
            "What follows an answered hold has the id of the message that was held, and begins with the results.",
            UI,
        ),
        "run-chat:default-agent": Requirement(
            "The agent of the key answers, and without one the model that the catalog names.",
            UI,
        ),
        "run-chat:event-ids": Requirement(
            "Every event of a UI message stream has an id that a client can come back with.",
            UI,
        ),
        "run-chat:every-mistake-at-once": Requirement(
            "Everything that is wrong with a body is named at once, and runs nothing.",
            UI,
        ),
        "run-chat:failed-call": Requirement(
            "A call that failed or was refused says why in an event of its own.",
            UI,
        ),
        "run-chat:failure-closes-what-is-open": Requirement(
            "A failure closes what is open, then says so, and is never a finished message.",
            UI,
        ),
        "run-chat:fields": Requirement(
            "Every published field of the body counts or is kept with the turn.",
            UI,
        ),
        "run-chat:files": Requirement(
            "Files come as data URIs or public https addresses; what is not taken is named.",
            UI,
        ),
        "run-chat:finish-reasons": Requirement(
            "Finish reasons are those that the oldest served client knows.",
            UI,
        ),
        "run-chat:headers-fill-the-prompt": Requirement(
            "The body's `headers` fill the agent's prompt, and are refused where its schema does not fit.",
            UI,
        ),
        "run-chat:hold": Requirement(
            "A held call asks for approval, and its stream ends with the reason `tool-calls`, in both modes.",
            UI,
        ),
        "run-chat:last-user-message": Requirement(
            "Only the last message of the user is new; instructions go with it, older messages are not looked at.",
            UI,
        ),
        "run-chat:message-id": Requirement(
            "A message's own id counts before the body's `messageId`, and both are of the server's alphabet.",
            UI,
        ),
        "run-chat:message-id-conflict": Requirement(
            "Of any number of messages with one id one is a turn; the others get the published 409, once.",
            UI,
        ),
        "run-chat:no-user-message": Requirement(
            "A request without a message of the user asks what its instructions say.",
            UI,
        ),
        "run-chat:operations": Requirement(
            "What the server does is told as `data-operation` to who sends `x-emit-operations: true`, to nobody else.",
            UI,
        ),
        "run-chat:order-of-a-call": Requirement(
            "A call, its input and its output are told in the step that made it, before the next one begins.",
            UI,
        ),
        "run-chat:order-of-a-text": Requirement(
            "A text is opened, told and closed within one step of the message.",
            UI,
        ),
        "run-chat:partial-answer": Requirement(
            "Held calls may be answered one after the other; each answer runs, and the rest holds again.",
            UI,
        ),
        "run-chat:problem-details": Requirement(
            "Every refusal is the published problem, named after its status, about the conversation if there is one.",
            UI,
        ),
        "run-chat:reattached": Requirement(
            "A durable UI message stream goes on behind each of its events with the same bytes, at any gateway.",
            UI,
        ),
        "run-chat:reattached-without-frames": Requirement(
            "A UI message stream whose frames are gone goes on with the same texts, calls and results.",
            UI,
        ),
        "run-chat:regenerate": Requirement(
            "Regenerating an answer claims no message id.",
            UI,
        ),
        "run-chat:resume-route": Requirement(
            "A conversation's stream is that of its active turn, and 204 when it has none to follow.",
            UI,
        ),
        "run-chat:sdks-own-send": Requirement(
            "What the SDK sends by itself is a new message of the conversation that `id` names.",
            UI,
        ),
        "run-chat:secrets-are-masked": Requirement(
            "Secret arguments are told in no event, neither whole nor in pieces.",
            UI,
        ),
        "run-chat:seeds-curl": Requirement(
            "The published example is answered, and refused with a problem where its credential is wrong.",
            UI,
        ),
        "run-chat:several-answers": Requirement(
            "One request may decide several calls, each in its own way.",
            UI,
        ),
        "run-chat:stream-headers": Requirement(
            "A UI message stream has the headers that the SDK's own server sends.",
            UI,
        ),
        "run-chat:told-once": Requirement(
            "A call and its result are told once, however often attempts repeat them.",
            UI,
        ),
        "run-chat:unknown-conversation": Requirement(
            "An answer to a conversation or a call that is not there, or another tenant's, is the same 404.",
            UI,
        ),
        "run-chat:whole-answer": Requirement(
            "Without a stream the answer is a chat completion that names its conversation.",
            UI,
        ),
        "run-completions:answers-as-completions": Requirement(
            "A run completion is answered with a chat completion or its chunks, which echo the model.",
            RUN,
        ),
        "run-completions:bounds": Requirement(
            "A run completion takes temperatures from 0 to 1, penalties from -2 to 2 and ids of their alphabet.",
            RUN,
        ),
        "run-completions:conversation": Requirement(
            "A run completion goes on with the conversation of the client's id, or makes it, and adds what is new.",
            RUN,
        ),
        "run-completions:errors": Requirement(
            "A refusal of the run API's completions has the body that is published for its status.", RUN
        ),
        "run-completions:every-mistake": Requirement(
            "Everything that is wrong with a run completion is told at once, by field and with its value.",
            RUN,
        ),
        "run-completions:fields": Requirement(
            "Every published field of a run completion is honoured, those that steer the model included.",
            RUN,
        ),
        "run-completions:holds": Requirement(
            "A held run completion is told as in completions and answered by their resume.", RUN
        ),
        "run-completions:message-id-conflict": Requirement(
            "A message id that was used before is a conflict that says so and is not worth a retry.", RUN
        ),
        "run-completions:message-id-is-of-a-new-message": Requirement(
            "A message id is that of the user's new message, and of nothing where there is none.", RUN
        ),
        "run-completions:one-message-one-turn": Requirement(
            "Of many run completions with one message id at once one runs.", RUN
        ),
        "run-completions:seeds-example": Requirement(
            "The published example of a run completion is understood as it stands.", RUN
        ),
        "run-completions:streams-unless-told": Requirement(
            "A run completion is streamed unless the request says otherwise.", RUN
        ),
        "scaling:runners": Requirement(
            "Turns wait for model-runners as long as Little's law says, and runners come and go without a failed turn.",
            SCALING,
        ),
        "settings:all-problems-at-once": Requirement(
            "Wrong and unknown settings are told all at once, with an exit code of their own.",
            "docs/settings.md",
        ),
        "settings:secrets-are-masked": Requirement("No secret among the settings is ever printed.", "docs/settings.md"),
        "start:key-is-kept": Requirement(
            "The first start makes a key that only its owner can read, and later ones show it again.", "README.md"
        ),
        "start:leaves-nothing": Requirement("However it ends, a cluster leaves no process behind.", "README.md"),
        "start:names-what-is-missing": Requirement(
            "What a machine lacks is named with the command that installs it.", "README.md"
        ),
        "start:names-who-has-the-port": Requirement("A port that is taken names its owner.", "README.md"),
        "start:openai-needs-no-configuration": Requirement(
            "An OpenAI key in the environment adds that endpoint's models by itself, and is stored nowhere.",
            "README.md",
        ),
        "start:servers-of-ones-own": Requirement(
            "NATS and MongoDB of one's own take the place of the embedded ones.", "README.md"
        ),
        "status:gateway": Requirement(
            "The status tells what a gateway knows of the cluster, and what of it is wrong.", OPERATING
        ),
        "status:without-a-gateway": Requirement(
            "The status tells what replicas say where no gateway answers, and says that it does.", OPERATING
        ),
        "store:claims-have-one-winner": Requirement(
            "Of claims of the same value one wins, and who takes over one that ran out keeps its turn.", DYING
        ),
        "store:first-write-stays": Requirement("The first record stored under an id stays.", DYING),
        "store:groups-writes": Requirement(
            "Writes that arrive together go together, none waits for company, and each caller hears of its own error.",
            CLASSIC,
        ),
        "store:tenant-in-every-call": Requirement(
            "Every store keeps tenants apart: another's thing is as if it did not exist.", "promise P12"
        ),
        "store:unavailable-in-time": Requirement(
            "Every operation on a store that is killed or frozen fails within 3 s and works again by itself.",
            "promise P10",
        ),
        "store:values-are-values": Requirement("What looks like an operator is stored as text.", "SECURITY.md"),
        "stream:call-deltas-carry-an-index": Requirement(
            "A delta of a tool call carries its index, and a delta of reasoning a field of its own.", OPENAI
        ),
        "stream:client-calls-as-they-come": Requirement(
            "Where no tools run here the caller's calls are streamed piece by piece, each once; else at the end.",
            OPENAI,
        ),
        "stream:ends-with-done": Requirement("A complete stream ends with `[DONE]`.", OPENAI),
        "stream:failure-is-a-status-first": Requirement("A failure before the first event is an HTTP status.", OPENAI),
        "stream:failure-is-never-complete": Requirement(
            "A stream that fails ends with an error event and its connection, without `[DONE]` or a finish reason.",
            OPENAI,
        ),
        "stream:first-chunk-names-the-role": Requirement(
            "The first chunk names the role and holds empty content.", OPENAI
        ),
        "stream:headers": Requirement(
            "A stream is `text/event-stream` that no cache and no proxy may keep or change.",
            "HTML standard, server-sent events",
        ),
        "stream:one-finish-reason": Requirement("Exactly one finish reason is sent, on the last choice.", OPENAI),
        "stream:one-write-for-each-event": Requirement(
            "Each event is written in one piece, with its execution and position as its id.",
            "HTML standard, server-sent events",
        ),
        "stream:pings": Requirement(
            "A silent stream is pinged at least every 15 s, and one that speaks is not.",
            "HTML standard, server-sent events",
        ),
        "stream:results-are-told-first": Requirement(
            "What came of a step's calls is told as soon as the next step begins, before its model is asked.", WIRE
        ),
        "stream:same-bytes-at-any-gateway": Requirement("The same turn gives the same bytes at any gateway.", PURE),
        "stream:status-line-waits": Requirement(
            "The status line waits for the first event or a failure, for at most 10 s.", OPENAI
        ),
        "stream:steps-are-one-text": Requirement(
            "The texts of a turn's steps are one text, parted by a blank line, streamed and whole alike.", OPENAI
        ),
        "stream:streams-do-not-mix": Requirement("Streams that run at once do not mix.", CLASSIC),
        "stream:usage-is-a-chunk-of-its-own": Requirement(
            "Usage comes when it is asked for, in a chunk without choices, and is null in all others.", OPENAI
        ),
        "tenants:changes-are-told": Requirement(
            "What is said of a tenant reaches its keys within five seconds.", TENANTS
        ),
        "tenants:defaults": Requirement("What is not said of a tenant is as is said of all.", TENANTS),
        "tenants:models-at-most": Requirement("A key names what both it and its tenant may name.", TENANTS),
        "tenants:native-routes": Requirement(
            "What a tenant may do is said, shown, listed and taken back at a route of its own.", TENANTS
        ),
        "tenants:operator": Requirement("Only an operator says what a tenant may do.", TENANTS),
        "tenants:set": Requirement("The command changes what it names of a tenant and nothing else.", TENANTS),
        "tool:arguments": Requirement("Arguments that are no object or do not fit the schema run nothing.", TOOLS),
        "tool:changed": Requirement(
            "A call that was judged under one version of its tool does not run under another.", TOOLS
        ),
        "tool:client-calls-are-returned": Requirement(
            "Calls of the caller's own tools are returned to the caller.", OPENAI
        ),
        "tool:effect-classes": Requirement(
            "After a crash a safe call runs again, a keyed one again under its key, and one of once never.", TOOLS
        ),
        "tool:every-call-has-a-result": Requirement(
            "Every call of a job has a result or a typed error in one event, and no bug's words get out.", CLASSIC
        ),
        "tool:large-results": Requirement(
            "A long result is stored and travels as a reference, and one beyond the limit is an error.", TOOLS
        ),
        "tool:mcp": Requirement(
            "A tool of an MCP server runs as any other, and not at all when the server's is not the pinned one.", TOOLS
        ),
        "tool:only-what-the-agent-has": Requirement("A model starts no tool that its agent does not list.", TOOLS),
        "tool:outcome-unknown": Requirement(
            "A call of once that may have run is never repeated, and its outcome is said to be unknown.", TOOLS
        ),
        "tool:refusals-are-results": Requirement(
            "An unknown tool, unfit arguments, a denial and a failure are results that the model is told.", TOOLS
        ),
        "tool:result-limit": Requirement("A result may be as large as the tool's limit and no larger.", TOOLS),
        "tool:server-before-client": Requirement(
            "Of one step the server's calls have results before the client's own are returned.", OPENAI
        ),
        "tool:server-calls-are-not-shown": Requirement(
            "Calls that run here are not shown to clients of chat completions.", OPENAI
        ),
        "tool:unknown": Requirement("A call of a tool that is not in the catalog runs nothing.", TOOLS),
        "topology:lanes-are-stable": Requirement(
            "A tenant keeps its lane, and the consumers of a queue never overlap.", MACHINES
        ),
        "upstream:breaker": Requirement(
            "A breaker opens within ten failures and closes when the upstream is back.", BREAKER
        ),
        "upstream:each-fault-ends-as-documented": Requirement(
            "Each fault of an upstream ends in the documented status and code, whole and streamed.", FAULTS
        ),
        "upstream:fallback-before-the-first-word": Requirement(
            "Another model of the group answers unless words were shown.", ROUTING
        ),
        "upstream:health-is-shown": Requirement(
            "A model whose upstream fails is shown as degraded or down until it is well.", UPSTREAMS_WATCHED
        ),
        "upstream:never-where-it-cannot-work": Requirement(
            "A call never goes to a model that the catalog says cannot take it.", ROUTING
        ),
        "upstream:not-hammered": Requirement(
            "An upstream is called as often as its fault and its provider's retries allow.", FAULTS
        ),
        "usage:command": Requirement("Usage is shown in a terminal by day, model and tenant, with a total.", USAGE),
        "usage:counted-once": Requirement(
            "A turn counts once, although replicas share the work or die in the middle of it.", USAGE
        ),
        "usage:erased-turns-count": Requirement("What was deleted goes on counting.", USAGE),
        "usage:from-the-turns": Requirement("Usage is counted from the turns themselves, of both modes.", USAGE),
        "usage:native-route": Requirement("A tenant sees what its turns cost by day, model and key.", USAGE),
        "usage:scopes": Requirement("Another tenant's usage is for operators only.", USAGE),
        "webhook:events": Requirement(
            "What happens to holds and turns is told to the webhooks of its tenant, each event once.", WEBHOOKS
        ),
        "webhook:never-the-turns-business": Requirement(
            "A webhook that fails or is refused changes nothing of its turn.", WEBHOOKS
        ),
        "webhook:retried": Requirement(
            "A webhook that fails is told again later, by growing delays and under the same key.", WEBHOOKS
        ),
        "webhook:signed": Requirement(
            "A webhook is signed over its time and its bytes, as a receiver can check.", WEBHOOKS
        ),
        "worker:crash-goes-to-redelivery": Requirement(
            "An unexpected error is tried again here a few times, then left to redelivery.", DYING
        ),
        "worker:drain-takes-nothing-new": Requirement(
            "A worker that drains finishes what it holds and takes nothing new; a second word ends it at once.", DYING
        ),
        "worker:heartbeat": Requirement("A slow handler keeps its message from being delivered again.", DYING),
        "worker:outdated-is-left": Requirement(
            "A delivery that another worker may have by now is neither worked on nor acknowledged.", DYING
        ),
        "worker:retry-costs-no-delivery": Requirement(
            "A retry runs the handler again here and costs no delivery.", DYING
        ),
        "worker:retry-takes-no-slot": Requirement(
            "What waits for its retry takes no slot, up to a bound: others are handled meanwhile.", DYING
        ),
        "worker:waits-for-a-dependency": Requirement(
            "While a dependency is down a worker takes nothing more and keeps what it holds, at no cost in deliveries.",
            DYING,
        ),
    }
)

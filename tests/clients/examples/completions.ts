type ChatCompletionResponse = {
choices: Array<{
message?: {
role: string;
content: string | null;
tool_calls?: Array<{
id: string;
type: string;
function: {
name: string;
arguments: string;
};
}>;
};
finish_reason: string | null;
}>;
kitemesh?: {
approval_id?: string;
execution_id?: string;
expires_at?: string;
request_id?: string;
};
};
async function runChat() {
const response = await fetch(
"https://your-kitemesh.example.com/v1/chat/completions",
{
method: "POST",
headers: {
Authorization: "Bearer km_your_token_here",
"Content-Type": "application/json",
},
body: JSON.stringify({
model: "group:123e4567-e89b-12d3-a456-426614174000",
messages: [
{
role: "user",
content: "Create a three-step action plan.",
},
],
metadata: {
request_id: "req_demo_002",
mode: "auto",
},
}),
},
);
const payload = (await response.json()) as ChatCompletionResponse;
if (!response.ok) {
throw new Error("Chat request failed");
}
const choice = payload.choices[0];
if (choice.finish_reason === "tool_calls") {
console.log("Approval required", payload.kitemesh?.approval_id);
return;
}
console.log(choice.message?.content ?? "");
}

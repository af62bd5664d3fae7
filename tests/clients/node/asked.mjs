// What the suite tells every script: where the server is, whose key to use, what to ask.

export const { origin, key, agentKey, model, prompts, tool } = JSON.parse(process.env.CLIENT_CASES);

export const counted = Array.from({ length: 40 }, (_, n) => `${n + 1} `).join("");

export function findCity(name) {
  return `${name} is on the map.`;
}

export async function executionOnceEnded(id) {
  for (;;) {
    const answer = await fetch(`${origin}/v1/executions/${id}`, { headers: { authorization: `Bearer ${key}` } });
    const execution = await answer.json();
    if (["completed", "failed", "cancelled", "expired"].includes(execution.status)) return execution;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

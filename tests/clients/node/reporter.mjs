// Tells the suite what came of each case: a line of JSON for each of them.

import { inspect } from "node:util";

export default async function* (source) {
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const error = type === "test:fail" ? inspect(data.details.error.cause ?? data.details.error) : null;
    yield `${JSON.stringify({ case: data.name, error })}\n`;
  }
}

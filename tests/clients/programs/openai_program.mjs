// What a program on OpenAI's TypeScript SDK does; prints one JSON line.

import OpenAI from "openai";

const model = "claude-sonnet-4-6";
const baseURL = process.env.TARGET_URL + "/v1";
const clientFor = (apiKey, more = {}) => new OpenAI({ baseURL, apiKey, maxRetries: 0, ...more });
const client = clientFor(process.env.TARGET_KEY);
const turn = (content) => [{ role: "user", content }];
const create = (messages, more = {}, by = client) =>
  by.chat.completions.create({ model, max_tokens: 200, messages, ...more });
const tool = {
  type: "function",
  function: {
    name: "get_lane",
    parameters: { type: "object", properties: { plate: { type: "string" } }, required: ["plate"] },
  },
};
const told = {};

const plain = await create(turn("[[say=Three euros.]]"));
told.plain = plain.choices[0].message.content;

const pieces = [];
for await (const chunk of await create(turn("[[tokens=40]]"), { stream: true })) {
  if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
}
told.streamed = [pieces.length, pieces.join("").length];

const asked = (await create(turn("Use get_lane for `AB-1`."), { tools: [tool] })).choices[0].message;
const [call] = asked.tool_calls;
told.tool_input = JSON.parse(call.function.arguments);
const turns = [
  ...turn("Use get_lane for `AB-1`."),
  asked,
  { role: "tool", tool_call_id: call.id, content: "Lane 4" },
];
told.answered = (await create(turns, { tools: [tool] })).choices[0].message.content;

const url =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const parts = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url } }];
told.picture = Boolean((await create(turn(parts))).choices[0].message.content);

const refusals = {
  401: () => create(turn("Hi"), {}, clientFor("nobody")),
  404: () => create(turn("Hi"), { model: "claude-nope-9" }),
  402: () => create(turn("Hi"), {}, clientFor(process.env.TARGET_POOR_KEY)),
  429: () => create(turn("Far too much. ".repeat(60000)), {}, clientFor(process.env.TARGET_BUSY_KEY)),
  529: () => create(turn("Hi"), {}, clientFor(process.env.TARGET_KEY, { defaultHeaders: { "x-simulator": "status=529" } })),
};
told.errors = {};
for (const [status, refuse] of Object.entries(refusals)) {
  try {
    await refuse();
    told.errors[status] = ["answered", null];
  } catch (error) {
    told.errors[status] = [error.constructor.name, error.status];
  }
}

// Until the limiter refuses; then the client finds out by itself when it may come again. Where the
// rate came back between the two there is nothing to wait for: once more.
const busy = clientFor(process.env.TARGET_BUSY_KEY);
const patient = clientFor(process.env.TARGET_BUSY_KEY, { maxRetries: 4 });
for (let round = 0; round < 5 && !told.retried?.has_waited; round++) {
  for (let isRefused = false; !isRefused; ) {
    await create(turn("Hi"), { max_tokens: 1 }, busy).catch((error) => (isRefused = error.status === 429));
  }
  const begun = performance.now();
  const said = (await create(turn("[[say=Three euros.]]"), {}, patient)).choices[0].message.content;
  told.retried = { said, has_waited: performance.now() - begun > 300 };
}

console.log(JSON.stringify({ openai: told }));

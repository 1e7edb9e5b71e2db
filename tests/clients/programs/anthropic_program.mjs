// What a program on the TypeScript SDK does; prints one JSON line.

import Anthropic from "@anthropic-ai/sdk";

const model = "claude-sonnet-4-6";
const options = { baseURL: process.env.TARGET_URL, maxRetries: 0 };
const client = new Anthropic({ ...options, apiKey: process.env.TARGET_KEY });
const turn = (content) => [{ role: "user", content }];
const tool = {
  name: "get_lane",
  input_schema: { type: "object", properties: { plate: { type: "string" } }, required: ["plate"] },
};
const told = {};

const said = await client.messages.create({
  model,
  max_tokens: 100,
  system: [{ type: "text", text: "Be brief." }],
  messages: turn("[[say=Three euros.]]"),
});
told.text = said.content[0].text;
told.requestId = said._request_id;

const stream = client.messages.stream({ model, max_tokens: 100, messages: turn("[[tokens=20]]") });
told.pieces = 0;
stream.on("text", () => (told.pieces += 1));
const final = await stream.finalMessage();
told.streamed = final.content[0].text;
told.usage = final.usage.output_tokens;

const asked = await client.messages.create({
  model,
  max_tokens: 2000,
  thinking: { type: "adaptive", display: "summarized" },
  tools: [tool],
  messages: turn("Use get_lane for `AB-1`."),
});
told.kinds = asked.content.map((block) => block.type);
told.input = asked.content.at(-1).input;
const answered = await client.messages.create({
  model,
  max_tokens: 100,
  tools: [tool],
  messages: [
    ...turn("Use get_lane for `AB-1`."),
    { role: "assistant", content: asked.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: asked.content.at(-1).id, content: "Lane 4" }] },
  ],
});
told.answered = answered.content[0].text;

told.counted = (await client.messages.countTokens({ model, messages: turn("four".repeat(10)) })).input_tokens;
told.listed = [];
for await (const listed of client.models.list({ limit: 2 })) told.listed.push(listed.id);

const refusals = [
  () => new Anthropic({ ...options, apiKey: "sk-ant-api03-nobody" }).messages.create({ model, max_tokens: 9, messages: turn("Hi") }),
  () => client.messages.create({ model, max_tokens: "many", messages: turn("Hi") }),
  () => client.messages.create({ model: "claude-nope-9", max_tokens: 9, messages: turn("Hi") }),
];
told.refusals = [];
for (const refuse of refusals) {
  try {
    await refuse();
  } catch (error) {
    told.refusals.push(error.constructor.name);
  }
}

console.log(JSON.stringify(told));

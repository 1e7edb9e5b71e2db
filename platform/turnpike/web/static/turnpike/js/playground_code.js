// The run of the playground as a program, in four ways. Keys come from the environment.
export function programs(request, baseUrl) {
  const body = { ...request };
  delete body.stream;
  return { python: python(body), typescript: typescript(body), curl: curl(body, baseUrl), openai: openai(body, baseUrl) };
}

function python(body) {
  const lines = Object.entries(body).map(([name, value]) => `    ${name}=${literal(value, 4)},`);
  return `import anthropic

client = anthropic.Anthropic()  # reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
with client.messages.stream(
${lines.join("\n")}
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)`;
}

function typescript(body) {
  const lines = Object.entries(body).map(([name, value]) => `  ${name}: ${json(value, 2)},`);
  return `import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic();  // reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
const stream = client.messages.stream({
${lines.join("\n")}
});
stream.on("text", (text) => process.stdout.write(text));
await stream.finalMessage();`;
}

function curl(body, baseUrl) {
  const text = json({ ...body, stream: true }, 0).replaceAll("'", "'\\''");
  return `curl -N ${baseUrl}/v1/messages \\
  -H "x-api-key: $ANTHROPIC_API_KEY" \\
  -H "anthropic-version: 2023-06-01" \\
  -H "content-type: application/json" \\
  -d '${text}'`;
}

function openai(body, baseUrl) {
  const messages = body.messages.map(({ role, content }) => ({ role, content: plain(content) }));
  if (body.system) messages.unshift({ role: "system", content: body.system });
  const fields = { model: body.model, max_tokens: body.max_tokens, messages };
  if (body.temperature !== undefined) fields.temperature = body.temperature;
  if (body.tools) {
    fields.tools = body.tools.map((tool) => ({ type: "function", function: { name: tool.name, description: tool.description || "", parameters: tool.input_schema || {} } }));
  }
  const lines = Object.entries(fields).map(([name, value]) => `    ${name}=${literal(value, 4)},`);
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${baseUrl}/v1", api_key=os.environ["ANTHROPIC_API_KEY"])
stream = client.chat.completions.create(
${lines.join("\n")}
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;
}

function plain(content) {
  if (typeof content === "string") return content;
  return content.map((part) => part.text || (part.type === "tool_result" ? String(part.content) : "")).join("");
}

function json(value, indent) {
  return JSON.stringify(value, null, 2).replaceAll("\n", `\n${" ".repeat(indent)}`);
}

// A JSON value as Python writes it.
function literal(value, indent) {
  const space = " ".repeat(indent);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((item) => literal(item, indent + 4))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, indent + 4)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (!parts.length) return open + close;
  const short = `${open}${parts.join(", ")}${close}`;
  if (short.length + indent < 88 && !short.includes("\n")) return short;
  return `${open}\n${parts.map((part) => `${space}    ${part},`).join("\n")}\n${space}${close}`;
}

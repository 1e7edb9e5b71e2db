// Server-sent events out of pieces of text, as [name, data]; what is left at the end is `rest`.
export class EventReader {
  rest = "";

  feed(text) {
    this.rest = (this.rest + text).replaceAll("\r\n", "\n");
    const events = [];
    for (let end = this.rest.indexOf("\n\n"); end >= 0; end = this.rest.indexOf("\n\n")) {
      const block = this.rest.slice(0, end);
      this.rest = this.rest.slice(end + 2);
      const event = read(block);
      if (event) events.push(event);
    }
    return events;
  }
}

function read(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (!data.length) return null;
  try {
    return [name, JSON.parse(data.join("\n"))];
  } catch {
    return null;
  }
}

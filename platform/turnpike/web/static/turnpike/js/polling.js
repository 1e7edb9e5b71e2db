// Fetches parts of a page again and again while the page is visible.
//
// <div data-poll="/address" data-poll-seconds="2">: the answer replaces the content. An answer with
// the header `x-poll: stop` is the last one.
for (const part of document.querySelectorAll("[data-poll]")) poll(part);

function poll(part) {
  const pause = Number(part.dataset.pollSeconds || 2) * 1000;
  let timer = 0;
  let isRunning = false;

  async function refresh() {
    if (isRunning) return;
    isRunning = true;
    try {
      const answer = await fetch(part.dataset.poll, { headers: { "X-Poll": "1" } });
      if (answer.ok && !answer.redirected) {
        part.innerHTML = await answer.text();
        if (answer.headers.get("x-poll") === "stop") return;
      }
    } catch {
      part.dataset.paused = "";
    } finally {
      isRunning = false;
    }
    wait();
  }

  function wait() {
    clearTimeout(timer);
    if (document.visibilityState === "visible") timer = setTimeout(refresh, pause);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") {
      delete part.dataset.paused;
      refresh();
    } else {
      part.dataset.paused = "";
      clearTimeout(timer);
    }
  });
  wait();
}

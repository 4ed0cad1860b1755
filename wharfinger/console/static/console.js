// Draws tokens a minute and the median time to the first token from the page's JSON twin.
"use strict";
async function draw() {
  const place = document.getElementById("plot");
  if (!place || typeof uPlot === "undefined") return;
  const answer = await fetch(place.dataset.source, { credentials: "same-origin" });
  if (!answer.ok) return;
  const data = await answer.json();
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue("--ink");
  const grid = { stroke: style.getPropertyValue("--line"), width: 1 };
  place.replaceChildren();
  new uPlot(
    {
      width: Math.max(320, place.clientWidth - 36),
      height: 320,
      scales: { ms: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      series: [
        {},
        { label: "tokens a minute", stroke: "#2f6fde", fill: "#2f6fde22", width: 2 },
        { label: "first token, ms (median)", stroke: "#d9822b", scale: "ms", width: 2, spanGaps: true },
      ],
      axes: [{ stroke: ink, grid }, { stroke: ink, grid }, { side: 1, scale: "ms", stroke: ink, grid: { show: false } }],
    },
    [data.seconds, data.tokens, data.ttftMilliseconds],
    place,
  );
}
document.addEventListener("DOMContentLoaded", draw);
document.addEventListener("htmx:after:swap", draw);

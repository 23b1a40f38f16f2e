"use strict";

const POLL_MS = 500;

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function get(url, type) {
  const options = { headers: { Accept: type }, cache: "no-store" };
  const response = await fetch(url, options);
  if (!response.ok) {
    throw new Error(`${response.status} ${response.statusText}`);
  }
  return response;
}

function setText(element, text) {
  // Screen readers announce every change: leave alone what is the same.
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function show(section, record) {
  const running = record.status === "running";
  setText(
    section.querySelector("#state"),
    running ? "Reading the rows." : "Waiting for a worker to begin.",
  );
  const badge = document.querySelector("main .status");
  setText(badge, record.status);
  badge.className = `status ${record.status}`;
  if (record.rows_total === null) {
    return;
  }
  const bar = section.querySelector("progress");
  bar.max = Math.max(record.rows_total, 1);
  bar.value = record.rows_done;
  const [done, total, bad] = [record.rows_done, record.rows_total, record.rows_bad].map(
    (rows) => rows.toLocaleString("en"),
  );
  const unreadable = record.rows_bad ? `, ${bad} unreadable` : "";
  setText(section.querySelector("#count"), `${done} of ${total} rows${unreadable}`);
}

// The server renders the result: put its page in the place of this one.
async function showResult(url) {
  const html = await (await get(url, "text/html")).text();
  const page = new DOMParser().parseFromString(html, "text/html");
  document.querySelector("main").replaceWith(page.querySelector("main"));
}

async function follow(section) {
  const url = section.dataset.url;
  for (;;) {
    try {
      const record = await (await get(url, "application/json")).json();
      if (record.status === "done" || record.status === "failed") {
        await showResult(url);
        return;
      }
      show(section, record);
    } catch {
      setText(section.querySelector("#state"), "No connection. Trying again.");
    }
    await wait(POLL_MS);
  }
}

function exampleRows(count) {
  const categories = ["Groceries", "Rent", "Travel", "Books", "Coffee"];
  const start = Date.UTC(2024, 0, 1);
  const lines = ["date,category,amount"];
  for (let i = 0; i < count; i += 1) {
    const day = new Date(start + (i % 366) * 86400000).toISOString().slice(0, 10);
    const amount = ((i * 37) % 9000) / 100 + 1;
    lines.push(`${day},${categories[i % categories.length]},${amount.toFixed(2)}`);
  }
  // Some that cannot be read.
  lines[700] = "2024-02-30,Travel,18.00";
  lines[2100] = "2024-03-09,Books,twelve";
  lines[3900] = "2024-09-26,Coffee";
  return lines.join("\n");
}

const section = document.querySelector("#progress");
if (section) {
  follow(section);
}

const example = document.querySelector("#example");
if (example) {
  example.hidden = false;
  example.addEventListener("click", () => {
    document.querySelector("#text").value = exampleRows(5000);
    document.querySelector("#file").value = "";
  });
}

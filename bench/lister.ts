// The baseline of `ps`: a bare program that asks a daemon for its state, prints it as a table, and ends.

import type { Info } from "../src/protocol/info.ts";

const REQUEST = Buffer.from('\0\0\0\x06"Info"');
const HEADER = ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "CONNECTED", "MESSAGES", "ID"];

function table({ runtimes }: Info): string {
  const nowMs = Date.now();
  const rows = Object.entries(runtimes).map(([id, runtime]) => [
    runtime.name ?? "",
    runtime.state,
    String(runtime.pid),
    `${((nowMs - (runtime.started ?? 0)) / 1_000).toFixed(1)} s`,
    String(runtime.restarts),
    runtime.connected ? "yes" : "no",
    String(runtime.messages.received),
    id.slice(-8),
  ]);
  const all = [HEADER, ...rows];
  const widths = HEADER.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  return all
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

const chunks: Buffer[] = [];
let missing = Number.NaN;
await Bun.connect<undefined>({
  unix: process.argv[2] as string,
  socket: {
    open: (socket) => void socket.write(REQUEST),
    data: async (socket, chunk) => {
      if (chunks.length === 0) missing = 4 + chunk.readUInt32BE();
      chunks.push(chunk);
      missing -= chunk.length;
      if (missing > 0) return;
      socket.end();
      const { Ok } = JSON.parse(Buffer.concat(chunks).toString("utf8", 4));
      await Bun.write(Bun.stdout, table(Ok));
    },
  },
});

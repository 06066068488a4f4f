// The baseline: a bare relay between sockets that looks at no byte.
//
// What arrives is written to its targets as it came; what the kernel does not take waits, and its
// source is not read meanwhile. No accounts, no frames, no bound but the pause.

import { readFileSync } from "node:fs";

import type { RelayPlan } from "./plan.ts";
import { reportTo } from "./side.ts";

interface End {
  socket: Bun.Socket<End> | undefined;
  waiting: Buffer[];
  readonly targets: End[];
  readonly sources: End[];
}

function receive(end: End, chunk: Buffer): void {
  let isBlocked = false;
  for (const target of end.targets) {
    const taken =
      target.waiting.length > 0 || target.socket === undefined
        ? 0
        : Math.max(0, target.socket.write(chunk));
    if (taken === chunk.length) continue;
    target.waiting.push(taken === 0 ? chunk : chunk.subarray(taken));
    isBlocked = true;
  }
  if (isBlocked) end.socket?.pause();
}

function drain(end: End): void {
  while (end.waiting.length > 0) {
    const [bytes] = end.waiting as [Buffer];
    const taken = Math.max(0, end.socket?.write(bytes) ?? 0);
    if (taken < bytes.length) {
      end.waiting[0] = bytes.subarray(taken);
      return;
    }
    end.waiting.shift();
  }
  for (const source of end.sources) {
    if (source.targets.every(({ waiting }) => waiting.length === 0)) source.socket?.resume();
  }
}

/** An end that somebody connects to, or that connects to a port. */
function open(to: string | number): End {
  const end: End = { socket: undefined, waiting: [], targets: [], sources: [] };
  const socket: Bun.SocketHandler<End> = {
    open: (opened) => {
      opened.data = end;
      end.socket = opened;
      drain(end);
    },
    data: (opened, chunk) => receive(opened.data, chunk),
    drain: (opened) => drain(opened.data),
  };
  if (typeof to === "string") Bun.listen<End>({ unix: to, socket });
  else void Bun.connect<End>({ hostname: "127.0.0.1", port: to, socket });
  return end;
}

function join(source: End, target: End): void {
  source.targets.push(target);
  target.sources.push(source);
}

const plan = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as RelayPlan;
for (const route of plan.routes) {
  const from = open(route.from);
  const targets = route.to.map(open);
  for (const target of targets) join(from, target);
  if (targets.length === 1) join(targets[0] as End, from);
}
await reportTo(plan.side, plan.name);

// The baseline of supervision: a bare program that starts, ends and replaces processes with
// `Bun.spawn` and nothing else, listens for each of them, and answers requests with ready bytes.

import { readFileSync } from "node:fs";

import type { KeeperPlan } from "./plan.ts";
import { reportTo } from "./side.ts";

const plan = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as KeeperPlan;
const children: Map<number, Bun.Subprocess> = new Map();
/** Of these nothing is told, and they are not replaced. */
const ending: Set<number> = new Set();

function spawnOne(index: number): number {
  const { path, env } = plan.programs[index] as KeeperPlan["programs"][number];
  const child = Bun.spawn({
    cmd: [path],
    env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
    onExit: ({ pid }) => {
      children.delete(pid);
      if (ending.delete(pid)) return;
      answer({ pids: [pid] });
      answer({ pids: [pid, spawnOne(index)] });
    },
  });
  children.set(child.pid, child);
  return child.pid;
}

async function endAll(): Promise<void> {
  const all = [...children.values()];
  for (const { pid } of all) {
    ending.add(pid);
    process.kill(-pid, plan.signal);
  }
  await Promise.all(all.map(({ exited }) => exited));
}

process.on("exit", () => {
  for (const pid of children.keys()) process.kill(-pid, "SIGKILL");
});
for (const { env } of plan.programs) {
  const unix = env["VEECLE_IPC_SOCKET"];
  if (plan.listens && unix !== undefined) Bun.listen({ unix, socket: { data: () => {} } });
}
if (plan.answers !== undefined) {
  const body = Buffer.alloc(plan.answers.bytes, 0x61);
  const unsent: WeakMap<object, Buffer> = new WeakMap();
  const send = (socket: Bun.Socket<undefined>, bytes: Buffer): void => {
    unsent.set(socket, bytes.subarray(Math.max(0, socket.write(bytes))));
  };
  Bun.listen<undefined>({
    unix: plan.answers.path,
    socket: {
      data: (socket) => send(socket, body),
      drain: (socket) => send(socket, unsent.get(socket) ?? Buffer.alloc(0)),
    },
  });
}
const answer = await reportTo(plan.side, plan.name, (command) => {
  if (command.kind === "spawn") answer({ pids: plan.programs.map((_, i) => spawnOne(i)) });
  else if (command.kind === "kill") void endAll().then(() => answer({}));
});

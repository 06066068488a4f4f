// The baseline of starts: a bare loop of `Bun.spawn` with the options that the orchestrator uses.

import { readFileSync } from "node:fs";

import type { SpawnPlan } from "./plan.ts";
import { reportTo } from "./side.ts";

const plan = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as SpawnPlan;
let children: Bun.Subprocess[] = [];

function spawnAll(): number[] {
  for (const { path, env } of plan.programs) {
    children.push(
      Bun.spawn({
        cmd: [path],
        env,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
        detached: true,
        onExit: () => {},
      }),
    );
  }
  return children.map(({ pid }) => pid);
}

function signalAll(): void {
  for (const { pid, exitCode, signalCode } of children) {
    if (exitCode === null && signalCode === null) process.kill(-pid, "SIGKILL");
  }
}

async function killAll(): Promise<void> {
  signalAll();
  await Promise.all(children.map(({ exited }) => exited));
  children = [];
}

process.on("exit", signalAll);
await reportTo(plan.side, plan.name, (command, answer) => {
  if (command.kind === "spawn") answer({ pids: spawnAll() });
  else if (command.kind === "kill") void killAll().then(() => answer({}));
});

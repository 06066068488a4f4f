// No command at all: says whether a daemon runs, what it holds, and what may be typed next.

import { formatAddress } from "../address.ts";
import { messageChain, OrchestratorError } from "../errors.ts";
import { escapeText } from "../log.ts";
import type { Info } from "../protocol/info.ts";
import { daemonCommand } from "./print.ts";
import { everyInstance, type Session } from "./session.ts";
import { CLI } from "./surface.ts";
import { count, isInTrouble } from "./words.ts";

/** A command, and what it does. */
type Next = readonly [command: string, text: string];

/** Returns whether a daemon answers. */
export async function first(session: Session): Promise<boolean> {
  const where = formatAddress(session.address);
  let said: string;
  let next: readonly Next[];
  let info: Info | undefined;
  try {
    info = await session.info();
    said = `An orchestrator serves ${where} (process ${info.pid}): ${holds(info)}.`;
    next = afterInfo(info);
  } catch (error) {
    if (!(error instanceof OrchestratorError)) throw error;
    const [, cause = error.message] = messageChain(error);
    said = `No orchestrator answers at ${where}: ${cause}.`;
    next = [[`${CLI} doctor`, "look for what is in its way"]];
    // Who hangs, is a stranger, or has lost its socket would be in the way of another one.
    const isFree = error.code === "unreachable" && !(await isHeld(session));
    const daemon = daemonCommand(session.values.get("--socket"));
    if (isFree) next = [[daemon, "start one"], ...next];
  }
  const all: readonly Next[] = [...next, [`${CLI} help`, "all commands"]];
  const { columns = Number.POSITIVE_INFINITY } = session.terminal;
  const longest = Math.max(...all.map(([, text]) => text.length));
  const isShort = (command: string): boolean => command.length + longest + 4 <= columns;
  const width = Math.max(...all.map(([command]) => (isShort(command) ? command.length : 0)));
  await session.answer(
    {
      daemon: info === undefined ? null : { address: where, pid: info.pid },
      next: all.map(([command]) => command),
    },
    () =>
      `${escapeText(said)}\n\n` +
      all
        .map(([command, text]) => {
          const typed = `  ${escapeText(command)}`; // is never cut: it is for copying
          const line = `${typed.padEnd(width + 2)}  ${text}`;
          return isShort(command) ? line : typed;
        })
        .map((line) => `${line}\n`)
        .join(""),
  );
  return info !== undefined;
}

async function isHeld({ address }: Session): Promise<boolean> {
  if (address.kind !== "unix") return false;
  const { lockHolder } = await import("../files/lock.ts");
  return lockHolder(`${address.path}.lock`) !== undefined;
}

function holds(info: Info): string {
  const runtimes = Object.values(info.runtimes);
  const running = runtimes.filter(({ state }) => state === "running").length;
  const of = runtimes.length === 0 ? "" : `, ${running} running`;
  return `${count(runtimes.length, "instance")}${of}, ${count(info.routes.length, "link")}`;
}

function afterInfo(info: Info): Next[] {
  const instances = everyInstance(info);
  const [one] = instances;
  if (one === undefined) {
    return [
      [`${CLI} runtime add PROGRAM --start`, "run a program"],
      [`${CLI} up FILE`, "or everything that a manifest names"],
    ];
  }
  const failed = instances.find(({ runtime }) => isInTrouble(runtime));
  const idle = instances.find((each) => each !== failed && each.runtime.state === "stopped");
  return [
    [`${CLI} ps`, "see what runs"],
    ...(failed === undefined ? [] : [[`${CLI} why ${failed.name}`, "it has failed"] as const]),
    ...(idle === undefined ? [] : [[`${CLI} start ${idle.name}`, "it does not run"] as const]),
    [`${CLI} logs -f`, "what they print"],
  ];
}

// The programs of a plan: what is known to be wrong with them before anything is done.

import { type Stats, statSync } from "node:fs";

import { messageChain, OrchestratorError, systemCode } from "../../errors.ts";
import { escapeText } from "../../log.ts";
import type { Plan } from "../../manifest/plan.ts";
import { shellWord } from "../print.ts";
import type { Session } from "../session.ts";
import { paint } from "../table.ts";

/** All that can be known to fail is told before anything is done. @throws `io` */
export function checkPrograms(session: Session, plan: Plan): void {
  const faults = [...programFaults(session, plan)];
  const [first, ...more] = faults;
  if (first === undefined) return;
  const { name, what, fault, hint } = first;
  const isOne = more.length === 0;
  const which = isOne
    ? `the program of ${JSON.stringify(name)} ${what}`
    : `${faults.length} programs cannot be run`;
  const each = faults.map((one) => new Error(`${one.name}: ${one.fault}`));
  throw new OrchestratorError("io", `Cannot apply the manifest: ${which}; nothing was changed`, {
    cause: isOne ? new Error(fault) : new AggregateError(each),
    hint: isOne ? hint : "mend their paths, or what is there",
  });
}

interface ProgramFault {
  /** Of the instance. */
  readonly name: string;
  readonly what: string;
  readonly fault: string;
  readonly hint: string;
}

/** What of the programs is wrong for certain. */
function* programFaults(session: Session, { instances }: Plan): Generator<ProgramFault> {
  const isHere = session.address.kind === "unix";
  for (const change of instances) {
    if (change.kind !== "add" && change.kind !== "change") continue;
    const { name, wanted } = change;
    const { path, copy } = wanted;
    if (!copy && !isHere) continue; // that of another machine is not ours
    const hint = `mend instances.${name}.path`;
    const stat = lookAt(path);
    if (stat instanceof Error) {
      const isNone = systemCode(stat) === "ENOENT";
      const what = isNone ? "is not there" : "cannot be looked at";
      const fault = isNone ? "no such file" : messageChain(stat).join(": ");
      yield { name, what, fault: `${fault}: ${path}`, hint };
    } else if (stat.isDirectory()) {
      yield { name, what: "is none", fault: `it is a folder: ${path}`, hint };
    } else if (!stat.isFile()) {
      yield { name, what: "is none", fault: `it is not a regular file: ${path}`, hint };
    } else if (!copy && (stat.mode & 0o111) === 0) {
      const reason = "is not executable"; // a copy is made so
      const chmod = `chmod +x ${shellWord(path)}`;
      yield { name, what: reason, fault: `it ${reason}: ${path}`, hint: chmod };
    }
  }
}

/** One look: a file may be taken away between two. */
function lookAt(path: string): Stats | Error {
  try {
    return statSync(path);
  } catch (error) {
    return error as Error;
  }
}

/** A program may still be built; who only looks learns that it is to be. */
export function noteFaults(session: Session, plan: Plan): void {
  if (session.isJson || session.isQuiet) return;
  const note = paint(session.reportColour, "33", "note:");
  for (const { name, fault } of programFaults(session, plan)) {
    session.terminal.report(`${note} ${escapeText(`${name}: ${fault}; up would refuse it`)}\n`);
  }
}

// Whether a process belongs to a run: may it use the socket of the instance?
//
// One look at the process itself answers nearly always; only others are followed to their parents.
// Whoever reads the mark of a run, which only the same user can, may pose as one of it: see
// docs/security.md.

import type { Host } from "../host.ts";
import { MAX_DESCENT } from "../limits.ts";
import type { RunIdentity } from "./tree.ts";

export type KinHost = Pick<Host, "readProcess" | "readMark">;

/** Whether the process with this pid is that of a run, or was started by it, now. */
export function isKin(host: KinHost, pid: number, run: RunIdentity | undefined): boolean {
  if (run === undefined || pid <= 0) return false; // 0: it is in a pid namespace that we cannot see
  const leader = host.readProcess(run.pid);
  const isOurs =
    leader === undefined || run.startTicks === undefined || leader.startTicks === run.startTicks;
  if (pid === run.pid) return isOurs; // it may have ended by now: the kernel has told who it was
  let next = pid;
  for (let depth = 0; depth < MAX_DESCENT && next > 1; depth++) {
    const entry = next === run.pid ? leader : host.readProcess(next);
    if (entry === undefined) return false;
    if (isOurs && (entry.session === run.pid || next === run.pid)) return true;
    if (host.readMark(next) === run.mark) return true;
    next = entry.parent;
  }
  return false;
}

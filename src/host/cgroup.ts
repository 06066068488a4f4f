// A door: control groups (cgroup v2), where the system has delegated one to the daemon.
//
//   <the daemon's own>/orchestrator-<run id>/<number>   one folder for each run
//
// What runs in a group cannot leave it by forking, and `cgroup.kill` ends all of it at once.

import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { systemCode } from "../errors.ts";

/** The control group of one run. */
export interface Cgroup {
  /** For `spawn`: the process is in it before it runs. */
  readonly path: string;
  /** What runs in it, also in groups below it. */
  pids(): number[];
  /** Sends SIGKILL to everything in it; what is being forked is not missed. */
  kill(): void;
  /** Removes the group; false if something still runs in it. */
  remove(): boolean;
}

/** The control groups of one daemon. */
export interface Cgroups {
  /** The folder of all of them, for the guard. */
  readonly path: string;
  /** Makes a group. @throws the system's error */
  make(name: string): Cgroup;
  /** Removes the folder; false if something still runs in it. */
  remove(): boolean;
}

/**
 * The daemon's own control group, if it is of version 2 and not the root.
 * @param cgroup the text of `/proc/self/cgroup`
 * @param mounts the text of `/proc/self/mountinfo`
 */
export function ownCgroup(cgroup: string, mounts: string): string | undefined {
  const path = /^0::(\/.+)$/m.exec(cgroup)?.[1];
  if (path === undefined) return undefined;
  for (const line of mounts.split("\n")) {
    // 31 24 0:27 /root /mount/point rw,… shared:9 - cgroup2 cgroup2 rw,…
    const [left, right] = line.split(" - ");
    if (right?.split(" ")[0] !== "cgroup2") continue;
    const [root, point] = (left as string).split(" ").slice(3) as [string, string];
    if (root === "/") return join(point, path);
    if (path === root || path.startsWith(`${root}/`)) return join(point, path.slice(root.length));
  }
  return undefined;
}

/** Makes a folder for control groups in the daemon's own, or returns undefined where that cannot be. */
export function openCgroups(runId: string): Cgroups | undefined {
  let own: string | undefined;
  try {
    own = ownCgroup(
      readFileSync("/proc/self/cgroup", "utf8"),
      readFileSync("/proc/self/mountinfo", "utf8"),
    );
  } catch {
    return undefined;
  }
  return own === undefined ? undefined : openCgroupsIn(own, runId);
}

/** As `openCgroups`, in a control group that is named. */
export function openCgroupsIn(own: string, runId: string): Cgroups | undefined {
  const path = join(own, `orchestrator-${runId}`);
  try {
    // To put a child into a group takes the right to move processes out of ours.
    for (const file of ["", "cgroup.procs"]) accessSync(join(own, file), constants.W_OK);
    if (!existsSync(join(own, "cgroup.kill"))) return undefined; // before Linux 5.14
    mkdirSync(path);
  } catch {
    return undefined;
  }
  return {
    path,
    make: (name) => {
      const group = join(path, name);
      mkdirSync(group);
      return {
        path: group,
        pids: () => pidsIn(group),
        kill: () => kill(group),
        remove: () => remove(group),
      };
    },
    remove: () => remove(path),
  };
}

function pidsIn(group: string): number[] {
  try {
    const own = readFileSync(join(group, "cgroup.procs"), "utf8").split("\n").filter(Boolean);
    return [...own.map(Number), ...groupsIn(group).flatMap(pidsIn)];
  } catch (error) {
    if (["ENOENT", "ENODEV"].includes(systemCode(error) ?? "")) return []; // it has been removed
    throw error;
  }
}

function groupsIn(group: string): string[] {
  return readdirSync(group, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(group, entry.name));
}

function kill(group: string): void {
  try {
    writeFileSync(join(group, "cgroup.kill"), "1", { flag: "r+" });
  } catch {
    // It has been removed; what could not be killed in this way is killed one by one.
  }
}

/** Groups below, which only the run itself can have made, go first. */
function remove(group: string): boolean {
  try {
    for (const inner of groupsIn(group)) if (!remove(inner)) return false;
    rmdirSync(group);
    return true;
  } catch (error) {
    return systemCode(error) === "ENOENT";
  }
}

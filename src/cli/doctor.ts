// `doctor`: looks at what the orchestrator needs and at what it tells, and says how to mend each finding.

import { readFileSync, statfsSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

import { type Address, formatAddress } from "../address.ts";
import { messageChain, OrchestratorError } from "../errors.ts";
import { lockHolder } from "../files/lock.ts";
import { isForEverybody } from "../files/secret.ts";
import type { Info } from "../protocol/info.ts";
import { ownCgroup } from "../host/cgroup.ts";
import { escapeText } from "../log.ts";
import { PROTOCOL_VERSION } from "../protocol.ts";
import { VERSION } from "../version.ts";
import { daemonCommand, droppedTotal, peerNotes, shellWord } from "./print.ts";
import { everyInstance, type Session } from "./session.ts";
import { CLI } from "./surface.ts";
import { paint } from "./table.ts";
import { count, formatBytes, formatDuration, stateWords } from "./words.ts";

/** What was looked at, and what came of it. */
export interface Finding {
  readonly level: "ok" | "warning" | "problem";
  readonly subject: string;
  readonly text: string;
  /** How to mend it. */
  readonly mend: string | null;
}

/** Below this, a state that grows and output may fill the disk. */
const MIN_FREE_BYTES = 256 * 2 ** 20;

/** An instance takes about four descriptors of the daemon; the rest is for control and the state. */
const DESCRIPTORS_PER_INSTANCE = 6;
const MIN_DESCRIPTORS = 1_024;

/** What `ulimit -e` must be, so that a priority of high (nice −10) can be set. */
const NEEDED_NICE = 30;

/** Clocks that are further apart make times of events and output hard to read. */
const MAX_SKEW_MS = 5_000;

/** The exit code where something does not work. */
const HAS_PROBLEMS = 3;

export async function doctor(session: Session): Promise<number> {
  const findings = [
    ...socketFindings(session),
    ...keyFindings(session),
    ...folderFindings(session),
    ...groupFindings(),
  ];
  const info = await reach(session, findings);
  if (info === undefined) {
    // What a daemon would have that is started from here.
    const own = { limits: limitsOf("self"), mayAll: process.getuid?.() === 0 };
    findings.push(...limitFindings(own.limits, own.mayAll, 0));
    if (session.address.kind === "unix") findings.push(...diskFindings(defaultFolder(session)));
  } else {
    const isHere = session.address.kind === "unix";
    const instances = Object.keys(info.runtimes).length;
    if (isHere) {
      findings.push(...limitFindings(limitsOf(info.pid), isRoot(info.pid), instances));
      findings.push(...keptFindings(info, session));
    }
    findings.push(...stateFindings(info), ...instanceFindings(info, session.terminal.now()));
  }
  await session.answer({ findings }, () => findings.map((one) => format(one, session)).join(""));
  return findings.some(({ level }) => level === "problem") ? HAS_PROBLEMS : 0;
}

function format({ level, subject, text, mend }: Finding, { colour, terminal }: Session): string {
  const style = { ok: "32", warning: "33", problem: "31" }[level];
  const indent = " ".repeat(9);
  const { columns = Number.POSITIVE_INFINITY } = terminal;
  const told = `${subject}: ${escapeText(text)}`;
  const width = Math.max(1, columns - indent.length);
  const lines = told.length > width ? Bun.wrapAnsi(told, width).split("\n") : [told];
  const line = `${paint(colour, style, level.padEnd(7))}  ${lines.join(`\n${indent}`)}\n`;
  return mend === null ? line : `${line}${indent}${escapeText(mend)}\n`;
}

function finding(
  level: Finding["level"],
  subject: string,
  text: string,
  mend: string | null = null,
): Finding {
  return { level, subject, text, mend };
}

/** Whether a daemon answers, and understands what we ask. */
async function reach(session: Session, findings: Finding[]): Promise<Info | undefined> {
  try {
    const version = String(await session.request({ kind: "Version" }));
    const info = await session.info();
    const text = `version ${version}, process ${info.pid}, answers`;
    findings.push(finding("ok", "daemon", text));
    if (info.version !== undefined && info.version !== VERSION) {
      const other = `the daemon's program is ${info.version}, this one ${VERSION}`;
      findings.push(finding("warning", "release", other, "use both from the same release"));
    }
    const skewMs = Math.abs((info.time ?? session.terminal.now()) - session.terminal.now());
    if (skewMs > MAX_SKEW_MS) {
      const apart = `the daemon's is ${formatDuration(skewMs)} apart from this one`;
      findings.push(
        finding("warning", "clock", apart, "set both, for example with an NTP service"),
      );
    } else findings.push(finding("ok", "clock", "as the daemon's"));
    if (version !== PROTOCOL_VERSION) {
      const other = `it speaks version ${version}, this program ${PROTOCOL_VERSION}`;
      findings.push(finding("warning", "version", other, "use both from the same release"));
    }
    const events = (await session.newClient()).events({ last: 0 });
    await events.ready;
    return info;
  } catch (error) {
    if (!(error instanceof OrchestratorError)) throw error;
    const mend =
      error.code === "bad_request"
        ? "the daemon is older than this program: start the one of this release"
        : error.code === "unreachable"
          ? holderOf(session.address) === undefined
            ? `start one with "${daemonCommand(session.values.get("--socket"))}"`
            : null // what is to be done first stands with its socket
          : (error.hint ?? null);
    findings.push(finding("problem", "daemon", messageChain(error).join(": "), mend));
    return undefined;
  }
}

/** The process that serves a socket, whether or not it is reached there. */
function holderOf(address: Address): number | undefined {
  return address.kind === "unix" ? lockHolder(`${address.path}.lock`) : undefined;
}

/** Who else could talk to the daemon. */
function socketFindings(session: Session): Finding[] {
  const { address } = session;
  const shown = formatAddress(address);
  if (address.kind === "tcp") {
    const isOwn = /^(127\.|localhost$|::1$)/.test(address.host);
    return [
      isOwn
        ? finding("ok", "socket", `${shown}, for this machine only`)
        : finding(
            "warning",
            "socket",
            `${shown} is not encrypted`,
            "use it only within a network of your own, or through ssh -L",
          ),
    ];
  }
  const stat = lookAt(address.path);
  if (stat === undefined) {
    const pid = holderOf(address);
    if (pid === undefined) return []; // that nobody listens is said by the daemon's own finding
    const text = `${shown} was removed, and process ${pid} still serves it`;
    return [finding("problem", "socket", text, `kill ${pid}, and start the daemon anew`)];
  }
  if (!stat.isSocket()) {
    return [finding("problem", "socket", `${shown} is no socket`, "name another with --socket")];
  }
  const mode = (stat.mode & 0o777).toString(8).padStart(4, "0");
  if ((stat.mode & 0o077) === 0) return [finding("ok", "socket", `${shown}, mode ${mode}`)];
  return [
    finding(
      "warning",
      "socket",
      `${shown} has mode ${mode}: others may start programs as its user`,
      `chmod 600 ${shellWord(shown)}`,
    ),
  ];
}

/** Whether the key that is shown to a daemon over TCP is ours alone. */
function keyFindings({ address, values, terminal: { env, folder } }: Session): Finding[] {
  const given = values.get("--tls-key") ?? env["VEECLE_ORCHESTRATOR_TLS_KEY"] ?? "";
  if (address.kind !== "tcp" || given === "") return [];
  const key = resolve(folder, given);
  if (!isForEverybody(key)) return [];
  const text = `${key}: every user of this machine may read it`;
  return [finding("warning", "key", text, `chmod o-r ${shellWord(key)}`)];
}

/** Where sockets go by default: a folder that only its user may enter. */
function folderFindings({ address, terminal: { env } }: Session): Finding[] {
  const folder = env["XDG_RUNTIME_DIR"];
  if (address.kind === "tcp" || folder === undefined || folder === "") return [];
  const stat = lookAt(folder);
  const subject = "runtime folder";
  if (stat?.isDirectory() !== true) {
    return [
      finding("problem", subject, `${folder} is not there`, `mkdir -m 0700 ${shellWord(folder)}`),
    ];
  }
  const own = process.getuid?.() ?? 0;
  if (stat.uid !== own && own !== 0) {
    const text = `${folder} belongs to user ${stat.uid}`;
    return [finding("problem", subject, text, "set XDG_RUNTIME_DIR to a folder of your own")];
  }
  if ((stat.mode & 0o022) !== 0) {
    return [
      finding(
        "warning",
        subject,
        `${folder}: others may write there`,
        `chmod 700 ${shellWord(folder)}`,
      ),
    ];
  }
  return [finding("ok", subject, folder)];
}

/** Whether stops may use a control group of the daemon's own; without, they look through processes. */
function groupFindings(): Finding[] {
  const read = (path: string): string => {
    try {
      return readFileSync(path, "utf8");
    } catch {
      return "";
    }
  };
  const group = ownCgroup(read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
  const text =
    group === undefined
      ? "none of version 2 here: stops look through all processes, which finds as much and takes longer"
      : `${group}; used by a daemon to which it is delegated (Delegate=yes of its unit)`;
  return [finding("ok", "control group", text)];
}

/** Where a daemon that is started from here keeps its state. */
function defaultFolder({ terminal: { env } }: Session): string | undefined {
  const { XDG_STATE_HOME, HOME } = env;
  const bases = [XDG_STATE_HOME, HOME === undefined ? undefined : `${HOME}/.local/state`];
  return bases.find((path) => path?.startsWith("/"));
}

/** Room where the daemon keeps its state; one of before does not say where. */
function keptFindings({ state }: Info, session: Session): Finding[] {
  if (state === null)
    return [finding("ok", "state", "nothing is remembered after the daemon's end")];
  if (typeof state !== "string") return diskFindings(defaultFolder(session));
  const folder = dirname(state);
  return lookAt(folder) === undefined ? [] : diskFindings(folder); // it may not be ours to see
}

/** Room in a folder, or where it will be made. */
function diskFindings(wanted: string | undefined): Finding[] {
  let folder = wanted;
  while (folder !== undefined && lookAt(folder) === undefined) {
    folder = folder === dirname(folder) ? undefined : dirname(folder);
  }
  if (folder === undefined) return [];
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  const text = `${formatBytes(free)} free in ${folder}`;
  if (free >= MIN_FREE_BYTES) return [finding("ok", "disk", text)];
  const mend = "make room, or start the daemon with --state-dir DIR";
  if (free > 0) return [finding("warning", "disk", text, mend)];
  return [finding("problem", "disk", `${text}: changes are refused`, mend)];
}

/** What cannot be looked at counts as none. */
function lookAt(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** The limits of the daemon's process; empty where it is not ours to see, or elsewhere. */
function limitsOf(pid: number | "self"): string {
  try {
    return readFileSync(`/proc/${pid}/limits`, "utf8");
  } catch {
    return "";
  }
}

function isRoot(pid: number): boolean {
  return lookAt(`/proc/${pid}`)?.uid === 0;
}

/** Pure: what `/proc/PID/limits` of the daemon means for so many instances. */
export function limitFindings(limits: string, mayAll: boolean, instances: number): Finding[] {
  const soft = (name: string): number | undefined => {
    const text = new RegExp(`^${name} +(\\S+)`, "m").exec(limits)?.[1];
    if (text === undefined) return undefined;
    return text === "unlimited" ? Number.POSITIVE_INFINITY : Number(text);
  };
  const findings: Finding[] = [];
  const files = soft("Max open files");
  const needed = Math.max(MIN_DESCRIPTORS, 256 + 2 * instances * DESCRIPTORS_PER_INSTANCE);
  if (files !== undefined) {
    findings.push(
      files >= needed
        ? finding("ok", "open files", `the daemon may have ${files}`)
        : finding(
            "warning",
            "open files",
            `the daemon may have ${files}; ${needed} are advisable for ${count(instances, "instance")}`,
            "ulimit -n 65536 before it is started, or LimitNOFILE= of its unit",
          ),
    );
  }
  const nice = soft("Max nice priority");
  if (nice !== undefined) {
    findings.push(
      mayAll || nice >= NEEDED_NICE
        ? finding("ok", "priority", "high may be set")
        : finding(
            "warning",
            "priority",
            "high cannot be set: such instances run with the normal one",
            `LimitNICE=${NEEDED_NICE} of its unit, or "nice" in limits.conf`,
          ),
    );
  }
  return findings;
}

/** Pure: whether the daemon can still keep what it is told; one of before does not say so. */
function stateFindings({ lost_state: file, pid }: Info): Finding[] {
  if (typeof file !== "string") return [];
  const text = `${file} was removed or replaced while the daemon uses it: it takes no changes`;
  const mend = `put it back, or kill ${pid}, and start the daemon anew`;
  return [finding("problem", "state", text, mend)];
}

/** Pure: instances that need somebody, and links that lose messages. */
export function instanceFindings(info: Info, nowMs: number): Finding[] {
  const instances = everyInstance(info);
  const inTrouble = instances.filter(
    ({ runtime: { state, held } }) => state === "failed" || state === "waiting" || held,
  );
  const findings = inTrouble.map(({ name, runtime }) => {
    const level = runtime.state === "failed" ? "problem" : "warning";
    return finding(level, name, stateWords(runtime, nowMs), `${CLI} why ${name}`);
  });
  if (findings.length === 0) {
    findings.push(
      finding("ok", "instances", `${count(instances.length, "instance")}, none in trouble`),
    );
  }
  const losing = info.routes.filter((link) => droppedTotal(link) > 0);
  if (losing.length > 0) {
    const sum = losing.reduce((total, link) => total + droppedTotal(link), 0);
    const text = `${count(sum, "message")} dropped on ${count(losing.length, "link")}`;
    findings.push(finding("warning", "links", text, `${CLI} link list`));
  }
  for (const note of peerNotes(info, nowMs, false)) {
    findings.push(
      finding("warning", "peers", note, "start the orchestrator there, or check the link"),
    );
  }
  return findings;
}

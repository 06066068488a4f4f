// `wait`: until instances are in a state, or cannot reach it any more.

import { OrchestratorError } from "../errors.ts";
import { escapeText } from "../log.ts";
import type { EventInfo, RuntimeInfo } from "../protocol/info.ts";
import type { InstanceId } from "../model.ts";
import { parseDuration } from "../settings.ts";
import { Deadline } from "./deadline.ts";
import { Unmet } from "./print.ts";
import type { Chosen, Session } from "./session.ts";
import { CLI } from "./surface.ts";
import { lastEvents } from "./tail.ts";
import { type Condition, messageType } from "./values.ts";
import { Watch } from "./watch.ts";
import { formatDuration, stateWords } from "./words.ts";

/** Pause between two looks at what no event tells: whether a message was sent. */
const LOOK_MS = 50;

/** Events in which the last exit is looked for. */
const READ_EVENTS = 50;

export async function wait(session: Session): Promise<void> {
  const { values, terminal } = session;
  const condition = values.get("--for") as Condition;
  const typeName = messageType(condition);
  const timeoutMs = parseDuration(values.get("--timeout") ?? "");
  const deadline = new Deadline(timeoutMs ?? Number.POSITIVE_INFINITY);
  if (timeoutMs) session.deadline = deadline;
  const first = session.chosen(await session.info());
  const watch = await Watch.begin(session, first);
  const ended = isForLiving(condition) ? await endedOf(session, first) : new Set<string>();
  const reached = new Set<string>();
  for (;;) {
    // Whatever happened before this answer shows in it, whatever comes later wakes us.
    const info = await session.info();
    for (const { id, name } of first) {
      const runtime = info.runtimes[id];
      if (runtime === undefined) {
        throw new Unmet(`Cannot wait for ${JSON.stringify(name)}: it was removed`);
      }
      const seen = watch.of(id);
      const isReached =
        holds(condition, runtime) || seen.some((event) => fulfils(condition, event));
      if (isReached || (typeName !== undefined && (await hasSent(session, id, typeName)))) {
        reached.add(id);
      } else if (isHopeless(condition, runtime, seen, ended.has(id))) {
        throw new Unmet(
          `Cannot wait until ${JSON.stringify(name)} ${reachedWords(condition)}: ` +
            `it is ${stateWords(runtime, terminal.now())}`,
          `see "${CLI} status ${name}"`,
        );
      }
    }
    const missing = first.filter(({ id }) => !reached.has(id));
    if (missing.length === 0) break;
    if (deadline.leftMs === 0)
      throw unmet(missing, condition, deadline, info.runtimes, terminal.now());
    await watch.changed(
      typeName === undefined ? deadline.leftMs : Math.min(deadline.leftMs, LOOK_MS),
    );
  }
  watch.close();
  const { runtimes } = await session.info();
  const documents = first.map(({ id, name, runtime }) => {
    const { state, pid, exit } = runtimes[id] ?? runtime;
    return { id, name, changed: false, state, pid, exit };
  });
  await session.answer({ instances: documents }, () =>
    first
      .map(({ id, name }) =>
        session.isQuiet ? `${id}\n` : `${name} ${escapeText(reachedWords(condition))}\n`,
      )
      .join(""),
  );
}

async function hasSent(session: Session, id: InstanceId, typeName: string): Promise<boolean> {
  return (await session.request({ kind: "Sent", id, typeName })) === true;
}

function reachedWords(condition: Condition): string {
  const typeName = messageType(condition);
  if (typeName !== undefined) return `has sent ${typeName}`;
  return condition === "exited" || condition === "failed" ? `has ${condition}` : `is ${condition}`;
}

function holds(condition: Condition, { state, exit, connected }: RuntimeInfo): boolean {
  switch (condition) {
    case "connected":
      return connected;
    case "stopped":
      return state === "stopped" || state === "failed";
    case "exited":
      return (state === "stopped" || state === "failed") && exit !== null;
    default:
      return state === condition;
  }
}

/** What was asked for may have been true for a moment only. */
function fulfils(condition: Condition, { kind }: EventInfo): boolean {
  if (condition === "running") return kind === "started";
  if (condition === "stopped") return kind === "stopped";
  return kind === condition;
}

/** Whether only an instance that lives can be so. */
function isForLiving(condition: Condition): boolean {
  return (
    condition === "running" || condition === "connected" || messageType(condition) !== undefined
  );
}

/** Those that have failed, or have ended by themselves: they have had their start. */
async function endedOf(session: Session, instances: readonly Chosen[]): Promise<Set<string>> {
  const ended = new Set<string>();
  for (const { id, runtime } of instances) {
    if (runtime.state === "failed") ended.add(id);
    if (runtime.state !== "stopped" || runtime.exit === null) continue;
    const events = await lastEvents(session, id, READ_EVENTS);
    const exited = events.findLast(({ kind }) => kind === "exited");
    if (exited !== undefined && exited.detail["stopping"] !== true) ended.add(id);
  }
  return ended;
}

/**
 * What has ended is hopeless, before the wait or during it; what has not been started yet, or was
 * stopped before the wait, may be started by somebody else.
 */
function isHopeless(
  condition: Condition,
  { state }: RuntimeInfo,
  seen: readonly EventInfo[],
  hadEnded: boolean,
): boolean {
  const hasEnded = seen.some(({ kind }) => kind === "exited" || kind === "failed");
  if (condition === "failed") return hasEnded && state === "stopped";
  const isOver = state === "stopped" || state === "failed";
  return isForLiving(condition) && (hadEnded || hasEnded) && isOver;
}

function unmet(
  missing: readonly Chosen[],
  condition: Condition,
  { timeoutMs }: Deadline,
  runtimes: Readonly<Record<string, RuntimeInfo>>,
  nowMs: number,
): Error {
  const states = missing.map(({ id, name, runtime }) => {
    return `${name} is ${stateWords(runtimes[id] ?? runtime, nowMs)}`;
  });
  const what =
    messageType(condition) === undefined
      ? `Not ${condition}`
      : `No message of ${messageType(condition)}`;
  if (timeoutMs === 0) return new Unmet(`${what}: ${states.join("; ")}`);
  return new OrchestratorError(
    "timed_out",
    `${what} within ${formatDuration(timeoutMs)}: ${states.join("; ")}`,
  );
}

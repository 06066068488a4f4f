// `start`, `stop` and `restart`: several instances side by side, each until it is in the state that
// was asked for, or the cause why it is not.

import { type ControlClient, stopDeadline } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import { showJson } from "../json.ts";
import { escapeText } from "../log.ts";
import type { EventInfo, Info } from "../protocol/info.ts";
import { parsePriority } from "../model.ts";
import { DEFAULT_SETTINGS, parseDuration } from "../settings.ts";
import { usage, findCommand } from "./commands.ts";
import { Deadline } from "./deadline.ts";
import { errorDocument, exitCode, formatError, Unmet, withName } from "./print.ts";
import { type Chosen, everyInstance, type Session } from "./session.ts";
import { lastOutput } from "./tail.ts";
import { CLI, type CommandName } from "./surface.ts";
import { tell } from "./telling.ts";
import { Watch } from "./watch.ts";
import { exitWords, formatDuration, stateWords } from "./words.ts";

/** A process that has neither connected nor ended after this time has started well. */
const STEADY_MS = 300;

/** How long a start is waited for if nothing else is said. */
export const START_TIMEOUT_MS = 30_000;

/** Instances that are worked on at the same time; each takes a connection. */
export const AT_ONCE = 32;

/** What is done to one instance; returns whether that has changed anything. */
type Act = (work: Work, instance: Chosen) => Promise<boolean>;

export const start = (session: Session): Promise<number> =>
  steer(session, "start", "started", ({ state }) => state !== "running", startOne);

export const stop = (session: Session): Promise<number> =>
  steer(session, "stop", "stopped", isBusy, stopOne);

export const restart = (session: Session): Promise<number> => {
  const { terminal, isJson } = session;
  const stopping = new Set<string>();
  void terminal.interrupted.then(() => {
    if (stopping.size === 0 || isJson) return;
    terminal.report(escapeText(`not started again: ${[...stopping].join(", ")}`) + "\n");
  });
  return steer(session, "restart", "restarted", isBusy, async (work, instance) => {
    stopping.add(instance.name);
    await stopOne(work, instance).finally(() => stopping.delete(instance.name));
    return startOne(work, {
      ...instance,
      runtime: { ...instance.runtime, state: "stopped" },
    });
  });
};

/** What all instances of one command share. */
export interface Work {
  readonly session: Session;
  readonly watch: Watch;
  /** Whether the state is waited for, or only that the daemon has understood. */
  readonly waits: boolean;
  readonly deadline: Deadline | undefined;
  readonly client: ControlClient;
}

type Runtime = Chosen["runtime"];

function isBusy({ state }: Runtime): boolean {
  return state === "running" || state === "waiting" || state === "stopping";
}

/** So often a program may end while it is waited for, if its policy is to start it again. */
const MAX_CRASHES = 3;

async function steer(
  session: Session,
  verb: CommandName,
  done: string,
  concerns: (runtime: Runtime) => boolean,
  act: Act,
): Promise<number> {
  const { values } = session;
  const timeoutMs = parseDuration(values.get("--timeout") ?? "");
  const deadline = timeoutMs === undefined ? undefined : new Deadline(timeoutMs);
  if (timeoutMs) session.deadline = deadline;
  const info = await session.info();
  const instances = choose(session, verb, info, concerns);
  const waits = !values.has("--no-wait");
  const watch = await Watch.begin(session, instances, (event) => !isResult(event));
  const outcomes: (boolean | { readonly error: unknown })[] = [];
  const queue = [...instances.entries()];
  const worker = async (): Promise<void> => {
    const client = await session.newClient();
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, instance] = next;
      const work = { session, watch, waits, deadline, client };
      outcomes[index] = await act(work, instance).catch((error: unknown) => ({ error }));
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, instances.length) }, worker));
  watch.close();
  return report(session, verb, done, instances, outcomes);
}

/** Whether the line of the result says the same. */
function isResult({ kind, detail }: EventInfo): boolean {
  if (kind === "started") return detail["restart"] === undefined;
  if (kind === "stopped") return detail["killed"] === undefined;
  return kind === "exited" && detail["stopping"] === true;
}

/** @throws `misuse` if neither or both of names and --all are given */
function choose(
  session: Session,
  verb: CommandName,
  info: Info,
  concerns: (runtime: Runtime) => boolean,
): Chosen[] {
  const { values } = session;
  const named = values.all("NAME").length > 0;
  if (named === values.has("--all")) {
    const command = findCommand(verb);
    const what = named ? "--all leaves no room for names" : "NAME or --all is missing";
    throw new OrchestratorError("misuse", `Cannot run "${verb}": ${what}`, {
      hint: command === undefined ? "" : `usage: ${CLI} ${usage(command)}`,
    });
  }
  if (named) return session.chosen(info);
  return everyInstance(info).filter(({ runtime }) => concerns(runtime));
}

/** Starts one, and waits until it runs; false if it did already. @throws `Unmet`, `timed_out`, … */
export async function startOne(work: Work, instance: Chosen): Promise<boolean> {
  const { session, watch, client } = work;
  const { id, runtime } = instance;
  if (runtime.state === "running") return false;
  const before = watch.of(id).length;
  const priority = parsePriority(session.values.get("--priority") ?? "");
  await client.request({ kind: "Start", id, priority }, session.answerMs);
  if (!work.waits) return true;
  const deadline = work.deadline ?? new Deadline(START_TIMEOUT_MS);
  let steadyMs = Number.POSITIVE_INFINITY;
  let startedSeq = 0;
  for (;;) {
    const seen = sinceStart(watch.of(id).slice(before));
    const outcome = judgeStart(instance, seen);
    if (outcome === "runs") return true;
    if (outcome instanceof Error) throw outcome;
    const started = seen.findLast(({ kind }) => kind === "started");
    if (outcome === "started" && started !== undefined) {
      if (started.seq !== startedSeq) steadyMs = performance.now() + STEADY_MS;
      startedSeq = started.seq;
      if (performance.now() >= steadyMs) return true;
    } else steadyMs = Number.POSITIVE_INFINITY;
    if (deadline.leftMs === 0) throw late(instance, "start", deadline, seen.at(-1));
    await watch.changed(Math.min(deadline.leftMs, Math.max(1, steadyMs - performance.now())));
  }
}

/**
 * Without the last events of a stop before it: they come on another connection than its answer, and
 * perhaps later. A start that was answered is told, so that everything of it begins there.
 */
function sinceStart(events: readonly EventInfo[]): readonly EventInfo[] {
  const first = events.findIndex(({ kind }) => kind === "started");
  return first < 0 ? events.filter(({ kind }) => kind === "removed") : events.slice(first);
}

/** What the events since a start say about it. */
function judgeStart(
  { name, runtime }: Chosen,
  seen: readonly EventInfo[],
): "runs" | "started" | "on its way" | Error {
  const last = seen.findLast(({ kind }) => kind !== "swept" && kind !== "disconnected");
  const cannot = `Cannot start instance ${JSON.stringify(name)}`;
  switch (last?.kind) {
    case "connected":
      return "runs";
    case "started":
      return "started";
    case "restarting": // after an end, which is told with it
    case "exited": {
      const { detail } = seen.findLast(({ kind }) => kind === "exited") ?? last;
      const ran = formatDuration(Number(detail["ran_ms"] ?? 0));
      if (detail["stopping"] === true) return new Unmet(`${cannot}: it was stopped meanwhile`);
      if (detail["code"] === 0) return "runs"; // it was a short piece of work, and it is done
      const how = exitWords(detail as NonNullable<Runtime["exit"]>);
      if (runtime.restart === "no" || runtime.restart === undefined) {
        return new Unmet(`${cannot}: it ended with ${how} after ${ran}`);
      }
      const crashes = seen.filter(({ kind }) => kind === "exited").length;
      if (crashes < MAX_CRASHES) return "on its way";
      return new Unmet(
        `${cannot}: it has ended ${crashes} times, last with ${how} after ${ran}; it goes on being started again`,
      );
    }
    case "failed":
      return new Unmet(`${cannot}: ${String(last.detail["reason"])}`);
    case "stopping":
    case "stopped":
      return new Unmet(`${cannot}: it was stopped meanwhile`);
    case "removed":
      return new OrchestratorError("not_found", `${cannot}: it was removed meanwhile`);
    default: // nothing yet, or a restart that is due
      return "on its way";
  }
}

/** Stops one, and waits until nothing is left; false if there was nothing. @throws `stop_failed`, … */
export async function stopOne(work: Work, instance: Chosen): Promise<boolean> {
  const { watch, waits, deadline, client } = work;
  const { id, runtime } = instance;
  if (!isBusy(runtime)) return false;
  const graceMs = runtime.stop_grace_ms ?? DEFAULT_SETTINGS.stopGraceMs;
  let isDone = false;
  const stopped = client
    .request({ kind: "Stop", id }, stopDeadline(graceMs))
    .finally(() => (isDone = true));
  stopped.catch(() => {}); // awaited below, if at all
  for (;;) {
    const leftMs = deadline?.leftMs ?? Number.POSITIVE_INFINITY;
    if (isDone) await stopped;
    if (isDone || (!waits && watch.of(id).some(({ kind }) => kind === "stopping"))) return true;
    if (leftMs === 0) throw late(instance, "stop", deadline as Deadline, watch.of(id).at(-1));
    await Promise.race([stopped, watch.changed(leftMs)]);
  }
}

function late(
  { name }: Chosen,
  verb: string,
  { timeoutMs }: Deadline,
  last: EventInfo | undefined,
): OrchestratorError {
  const [told] = last === undefined ? [] : tell([last], (id) => id);
  const message = `Cannot ${verb} instance ${JSON.stringify(name)} within ${formatDuration(timeoutMs)}`;
  return new OrchestratorError("timed_out", message, {
    cause: new Error(
      told === undefined ? "nothing has happened yet" : `the last that happened: ${told.text}`,
    ),
    hint: `it goes on; see "${CLI} status ${name}"`,
  });
}

/** Prints what was done and what was not; the exit code is that of the first failure. */
async function report(
  session: Session,
  verb: CommandName,
  done: string,
  instances: readonly Chosen[],
  outcomes: readonly (boolean | { readonly error: unknown })[],
): Promise<number> {
  const { runtimes } = await session.info();
  const documents: unknown[] = [];
  let code = 0;
  for (const [index, { id, name }] of instances.entries()) {
    const outcome = outcomes[index] as boolean | { readonly error: unknown };
    const runtime = runtimes[id] ?? (instances[index] as Chosen).runtime;
    if (typeof outcome === "object") {
      code ||= exitCode(outcome.error);
      await reportFailure(session, verb, { id, name, runtime }, outcome.error);
      continue;
    }
    const { state, pid, exit } = runtime;
    documents.push({ id, name, changed: outcome, state, pid, exit });
    if (session.isJson) continue;
    if (session.isQuiet) await session.print(id);
    else {
      const text = outcome
        ? `${done} ${name}${facts(runtime, session)}`
        : `${name} is ${stateWords(runtime, session.terminal.now())} already`;
      await session.print(escapeText(text));
    }
  }
  if (session.isJson) await session.print(showJson({ instances: documents }));
  else if (instances.length === 0 && !session.isQuiet) await session.print(`nothing to ${verb}`);
  return code;
}

function facts({ pid, exit }: Runtime, { values }: Session): string {
  if (values.has("--no-wait")) return "";
  if (pid !== null) return ` (pid ${pid})`;
  return exit === null ? "" : ` (${exitWords(exit)})`;
}

/** Tells why an instance is not as it was asked for, with its last output if that may tell more. */
export async function reportFailure(
  session: Session,
  verb: CommandName,
  instance: Chosen,
  error: unknown,
): Promise<void> {
  const { terminal, isJson, reportColour } = session;
  const asked = { command: verb, values: new Map([["NAME", instance.name]]) };
  if (isJson) {
    terminal.report(errorDocument(error, asked));
    return;
  }
  terminal.report(formatError(withName(error, instance.id, instance.name), asked, reportColour));
  const isLate = error instanceof OrchestratorError && error.code === "timed_out";
  if (!(error instanceof Unmet) && !isLate) return;
  // What was printed before a start does not tell why that failed.
  const sinceMs = verb === "stop" || verb === "down" ? 0 : session.beganMs;
  terminal.report(await lastOutput(session, instance, sinceMs));
}

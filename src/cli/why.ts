// `why`: one paragraph about each instance: what it is doing, what has brought it there, what to do.

import type { EventInfo, Info, LineInfo, LinkInfo } from "../protocol/info.ts";
import { MAX_SHOWN_LINE } from "../limits.ts";
import { escapeText, shorten } from "../log.ts";
import { mendingOf } from "./print.ts";
import { type Chosen, nameOf, namesOf, type Session } from "./session.ts";
import { CLI } from "./surface.ts";
import { lastEvents, lastLines } from "./tail.ts";
import { memoryKills, type NameOf, targetName } from "./telling.ts";
import { together } from "./together.ts";
import { count, exitWords, formatDuration, isNobody, peerWords } from "./words.ts";

/** Instances that are asked about at once; each takes two connections. */
const AT_ONCE = 16;

/** Events in which the last start, stop and exit are looked for. */
const READ_EVENTS = 50;

/** What is known about one instance. */
export interface Facts {
  readonly instance: Chosen;
  readonly links: readonly LinkInfo[];
  /** Oldest first. */
  readonly events: readonly EventInfo[];
  readonly lastLine: LineInfo | undefined;
}

/** An answer: sentences, and the command to type next, without the program's name. */
export interface Explanation {
  readonly why: string;
  readonly next: string | null;
}

export async function why(session: Session): Promise<void> {
  const info = await session.info();
  const name = nameOf(namesOf(info));
  const nowMs = session.terminal.now();
  const found = await together(session.chosen(info), AT_ONCE, async (instance) => {
    const facts = await factsOf(session, info, instance);
    return { instance, ...explain(facts, name, nowMs) };
  });
  const documents = found.map(({ instance, ...explanation }) => {
    const { id, runtime } = instance;
    return { id, name: instance.name, state: runtime.state, ...explanation };
  });
  await session.answer({ instances: documents }, () =>
    found
      .map(({ why: text, next }) => {
        const hint = next === null ? "" : `Next: ${CLI} ${next}\n`;
        return `${wrap(escapeText(text), session.terminal.columns)}\n${hint}`;
      })
      .join("\n"),
  );
}

async function factsOf(session: Session, info: Info, instance: Chosen): Promise<Facts> {
  const { id } = instance;
  const [events, [lastLine]] = await Promise.all([
    lastEvents(session, id, READ_EVENTS),
    lastLines(session, id, 1),
  ]);
  const links = info.routes.filter(({ from, to }) => from === id || to === id);
  return { instance, links, events, lastLine };
}

function wrap(text: string, columns: number | undefined): string {
  return columns === undefined ? text : Bun.wrapAnsi(text, columns, { trim: true });
}

/** Pure: what the facts say. */
export function explain(facts: Facts, nameOfId: NameOf, nowMs: number): Explanation {
  const { instance, events, lastLine } = facts;
  const { name, runtime } = instance;
  const exited = events.findLast(({ kind }) => kind === "exited");
  const refused = events.findLast(({ kind }) => kind === "start_failed");
  const words =
    lastLine === undefined
      ? "It printed nothing."
      : `Its last line: "${shorten(lastLine.line, MAX_SHOWN_LINE)}".`;
  const ended = endWords(instance, exited, events, nowMs);
  const mended = (reason: string): string => mendingWords(reason, instance);
  const next = { start: `start ${name}`, stop: `stop ${name}`, logs: `logs ${name}` };
  switch (runtime.state) {
    case "running":
      return running(facts, nameOfId, nowMs);
    case "stopping": {
      const asked = events.findLast(({ kind }) => kind === "stopping");
      const signal = String(asked?.detail["signal"] ?? runtime.stop_signal);
      const goneMs = asked === undefined ? 0 : nowMs - asked.time;
      const leftMs = (runtime.stop_grace_ms ?? 0) - goneMs;
      const end = leftMs > 0 ? `It is killed in ${formatDuration(leftMs)}.` : "It is being killed.";
      const ago = `${formatDuration(goneMs)} ago`;
      return { why: `${name} is being stopped: ${signal} was sent ${ago}. ${end}`, next: null };
    }
    case "waiting": {
      const due = runtime.due === null ? "soon" : `in ${formatDuration(runtime.due - nowMs)}`;
      const policy = `since its policy is ${runtime.restart}`;
      const again = `It is started again ${due} (restart ${runtime.restarts + 1}), ${policy}.`;
      const after = events.findLast(({ kind }) => kind === "restarting")?.detail["after"];
      const isByEnd = runtime.exit !== null && after === exitWords(runtime.exit);
      if (typeof after === "string" && !isByEnd) {
        const tried = `Since then it could not be started: ${after}.`;
        return { why: `${ended} ${tried} ${again}${mended(after)}`, next: next.start };
      }
      return { why: `${ended} ${again} ${words}`, next: next.logs };
    }
    case "failed":
      return {
        why:
          `${name} has failed and is not started again: ${runtime.reason ?? "too many restarts"}. ` +
          `${words}${mended(runtime.reason ?? "") || " Mend the cause, then start it."}`,
        next: next.start,
      };
    default:
      if (refused !== undefined && refused.seq > (exited?.seq ?? 0)) {
        const ago = formatDuration(nowMs - refused.time);
        const reason = String(refused.detail["reason"]);
        const told = `${name} could not be started ${ago} ago: ${reason}.${mended(reason)}`;
        return { why: told, next: next.start };
      }
      if (exited === undefined && runtime.exit === null) {
        return { why: `${name} has not been started.`, next: next.start };
      }
      if (exited?.detail["stopping"] === true) return { why: ended, next: next.start };
      return {
        why: `${ended} It is not started again, since its policy is ${runtime.restart}. ${words}`,
        next: next.start,
      };
  }
}

/** A sentence that says how to mend what keeps a program from being run; empty if that is not known. */
function mendingWords(reason: string, { name, runtime }: Chosen): string {
  const isElsewhere =
    /no such|it is a folder|not a (regular )?file|not a directory|that were uploaded/.test(reason);
  const isManifest = runtime.owner != null;
  const isUpload = runtime.hash != null;
  const again = isManifest
    ? `type "${CLI} up" again`
    : `add it ${isUpload ? "again with --copy" : "with the right path"}`;
  const moved =
    isManifest && !isUpload
      ? `correct its path in the manifest, and ${again}`
      : `remove it with "${CLI} runtime remove ${name}", and ${again}`;
  const mending = mendingOf(reason, runtime.binary) ?? (isElsewhere ? moved : undefined);
  return mending === undefined ? "" : ` To mend that, ${mending}.`;
}

/** How and when the last run ended, and what became of all that it had started. */
function endWords(
  { name, runtime }: Chosen,
  exited: EventInfo | undefined,
  events: readonly EventInfo[],
  nowMs: number,
): string {
  const how = runtime.exit === null ? "" : ` (${exitWords(runtime.exit)})`;
  if (exited === undefined) return `${name} has ended${how}.`;
  const { detail, time } = exited;
  const ago = `${formatDuration(nowMs - time)} ago`;
  const ofRun = (sought: string): EventInfo | undefined =>
    events.findLast(({ kind, detail: { pid } }) => kind === sought && pid === detail["pid"]);
  if (detail["stopping"] === true) {
    const killed = ofRun("stopped")?.detail["killed"];
    const asked = killed === undefined ? undefined : ofRun("stopping");
    const rest = asked === undefined ? "" : ` ${stubbornWords(String(killed), asked)}`;
    return `${name} was stopped ${ago}${how}.${rest}`;
  }
  const ran = `after it had run for ${formatDuration(Number(detail["ran_ms"] ?? 0))}`;
  const verb = detail["code"] === 0 ? "ended by itself" : "crashed";
  const kills = memoryKills(detail);
  const cause = kills === undefined ? "" : ` That may have been it: ${kills}.`;
  const behind = ofRun("swept") === undefined ? "" : ` ${LEFT_BEHIND}`;
  return `${name} ${verb} ${ago}${how}, ${ran}.${cause}${behind}`;
}

const LEFT_BEHIND =
  "It left processes behind, which were killed: a program must not go into the background.";

/** What outlived its leader and the grace of a stop. */
function stubbornWords(killed: string, { detail }: EventInfo): string {
  const signal = String(detail["signal"]);
  const grace = formatDuration(Number(detail["grace_ms"]));
  const told = `What it had started did not end within ${grace} of ${signal} and was killed: ${killed}.`;
  if (signal !== "SIGINT") return told;
  return `${told} Commands that a shell runs in the background ignore SIGINT; --stop-signal SIGTERM reaches them.`;
}

function running({ instance, links }: Facts, nameOfId: NameOf, nowMs: number): Explanation {
  const { id, name, runtime } = instance;
  const since =
    typeof runtime.started === "number" ? ` for ${formatDuration(nowMs - runtime.started)}` : "";
  const sentences = [`${name} has run${since} (pid ${runtime.pid}).`];
  if (runtime.restarts > 0)
    sentences.push(`It was started again ${count(runtime.restarts, "time")}.`);
  let next = `status ${name}`;
  const waiting = links.filter(({ to }) => to === id).reduce((sum, { queued }) => sum + queued, 0);
  if (!runtime.connected) {
    // Most programs know nothing of a socket: it is worth a word only if messages wait for it.
    if (waiting > 0) sentences.push("It has not connected to its socket.");
    if (waiting > 0) sentences.push(`${count(waiting, "message")} for it wait until it does.`);
  } else if (waiting > 0) {
    sentences.push(
      `${count(waiting, "message")} for it wait: it reads more slowly than others send.`,
    );
  }
  for (const { from, to, type_name: type, peer } of links) {
    if (from !== id || peer === undefined || !isNobody(peer)) continue;
    sentences.push(`Its messages ${type} go to ${to}: ${peerWords(peer, nowMs)}.`);
    next = "link list";
  }
  if (runtime.held) {
    const full = links
      .filter(({ from, on_full }) => from === id && on_full === "block")
      .toSorted((a, b) => b.queued - a.queued)[0];
    const to = full === undefined ? undefined : targetName(full.to, nameOfId);
    sentences.push(
      to === undefined
        ? "It is not read from, since a link with the policy block is full."
        : `It is not read from, since its messages ${full?.type_name} for ${to} are not taken.`,
    );
    if (to !== undefined) next = `why ${to}`;
  }
  return { why: sentences.join(" "), next };
}

// `status`: what an instance is doing, why, with what settings, and what it has done last.

import { errorCode } from "../errors.ts";
import type {
  EventInfo,
  Info,
  LineInfo,
  LinkInfo,
  ResourcesInfo,
  RuntimeInfo,
} from "../protocol/info.ts";
import { isObject } from "../json.ts";
import { MAX_SHOWN_LINE } from "../limits.ts";
import { escapeText, shorten } from "../log.ts";
import type { InstanceId } from "../model.ts";
import { DEFAULT_SETTINGS } from "../settings.ts";
import { eventDocument } from "./events.ts";
import { lineDocument, tamed } from "./logs.ts";
import {
  type Chosen,
  instanceDocument,
  linkDocument,
  nameOf,
  namesOf,
  type Session,
} from "./session.ts";
import { fit, fitMiddle, paint, shortName } from "./table.ts";
import { lastEvents, lastLines } from "./tail.ts";
import { together } from "./together.ts";
import { type NameOf, targetName, tellShort } from "./telling.ts";
import {
  count,
  formatBytes,
  formatDuration,
  formatMoment,
  peerWords,
  stateStyle,
  stateWords,
} from "./words.ts";

/** Instances that are asked about at once; each takes two connections. */
const AT_ONCE = 16;

const SHOWN_EVENTS = 5;
const SHOWN_LINES = 10;
const LABEL_WIDTH = 9;
/** Of what stands in a section. */
const INDENT = 4;
/** On a screen, a name is not cut shorter than this in favour of the state. */
const MIN_NAME = 16;

/** Between two looks at links, which give their rates; whoever asks does not notice. */
const RATE_MS = 200;

/** The exit code says whether all of them run. */
const NOT_RUNNING = 3;

/** Exit code where no daemon answers, as that of every error that tells so. */
const NO_DAEMON = 5;

/** A link, and how many messages a second take it now. */
type Flow = LinkInfo & { readonly per_second: number };

/** Everything that is told about one instance. */
interface Picture {
  readonly instance: Chosen;
  readonly resources: ResourcesInfo | undefined;
  readonly links: readonly Flow[];
  readonly events: readonly EventInfo[];
  readonly output: readonly LineInfo[];
}

export async function status(session: Session): Promise<number> {
  if (session.values.all("NAME").length === 0) {
    return (await (await import("./first.ts")).first(session)) ? 0 : NO_DAEMON;
  }
  const info = await session.info();
  const instances = session.chosen(info);
  const flows = flowsOf(session, info, instances);
  flows.catch(() => {}); // awaited below
  const resources = await resourcesOf(
    session,
    instances.map(({ id }) => id),
  );
  const pictures = await together(instances, AT_ONCE, async (instance): Promise<Picture> => {
    const { id } = instance;
    const [events, output] = await Promise.all([
      lastEvents(session, id, SHOWN_EVENTS).catch(unknownToDaemon),
      lastLines(session, id, SHOWN_LINES).catch(unknownToDaemon),
    ]);
    const links = (await flows).filter(({ from, to }) => from === id || to === id);
    return { instance, resources: resources[id], links, events, output };
  });
  const name = nameOf(namesOf(info));
  await session.answer(
    { instances: pictures.map((picture) => pictureDocument(picture, name)) },
    () => pictures.map((picture) => describe(session, picture, name)).join("\n"),
  );
  return instances.every(({ runtime }) => runtime.state === "running") ? 0 : NOT_RUNNING;
}

/** A daemon of before knows no such request: then there is less to tell. */
function unknownToDaemon(error: unknown): never[] {
  if (errorCode(error) === "bad_request") return [];
  throw error;
}

async function resourcesOf(
  session: Session,
  ids: readonly InstanceId[],
): Promise<Readonly<Record<string, ResourcesInfo>>> {
  const answer = await session.request({ kind: "Resources", ids }).catch(unknownToDaemon);
  return isObject(answer) ? (answer as Record<string, ResourcesInfo>) : {};
}

/** The links of instances with their rates, from a second look a moment later if there are any. */
async function flowsOf(
  session: Session,
  before: Info,
  instances: readonly Chosen[],
): Promise<Flow[]> {
  const ids = new Set<string>(instances.map(({ id }) => id));
  const concerns = ({ from, to }: LinkInfo): boolean =>
    ids.has(to) || (from !== null && ids.has(from));
  const former = before.routes.filter(concerns);
  if (former.length === 0) return [];
  const beginMs = performance.now();
  await Bun.sleep(RATE_MS);
  const { routes } = await session.info();
  const seconds = (performance.now() - beginMs) / 1_000;
  return routes.filter(concerns).map((link) => {
    const same = former.find(
      ({ type_name, from, to }) =>
        type_name === link.type_name && from === link.from && to === link.to,
    );
    return { ...link, per_second: Math.round((link.routed - (same?.routed ?? 0)) / seconds) };
  });
}

function pictureDocument(
  { instance, resources, links, events, output }: Picture,
  name: NameOf,
): Record<string, unknown> {
  return {
    ...instanceDocument(instance),
    resources: resources ?? null,
    links: links.map(linkDocument),
    events: events.map(eventDocument),
    output: output.map((line) => lineDocument(line, name)),
  };
}

function describe(session: Session, picture: Picture, name: NameOf): string {
  const { colour, terminal } = session;
  const { instance, resources } = picture;
  const { runtime, id } = instance;
  const nowMs = terminal.now();
  const since = typeof runtime.started === "number" ? nowMs - runtime.started : undefined;
  const state =
    escapeText(stateWords(runtime, nowMs)) +
    (since === undefined ? "" : ` for ${formatDuration(since)}`);
  const { columns } = terminal;
  const room = columns === undefined ? undefined : columns - Bun.stringWidth(state) - 2;
  const head =
    room === undefined ? instance.name : fitMiddle(instance.name, Math.max(room, MIN_NAME));
  const lines = [
    `${paint(colour, "1", head)}  ${paint(colour, stateStyle(runtime), state)}`,
    ...labelled(session, [
      ["id", id],
      ["program", [runtime.binary, ...(runtime.args ?? []).map(shown)].join(" ")],
      ["pid", processes(runtime, resources)],
      ["cpu", resources === undefined ? "" : cpu(resources, since)],
      ["memory", resources === undefined ? "" : memory(resources)],
      ["restarts", runtime.restarts > 0 ? String(runtime.restarts) : ""],
      ["connected", connection(runtime)],
      ["settings", settings(runtime)],
    ]),
    ...section(
      "links",
      picture.links.flatMap((link) => linkLines(link, id, name, nowMs, columns)),
    ),
    ...section("events", eventLines(session, picture.events, name)),
    ...section("output", outputLines(session, picture.output)),
  ];
  return lines.map((line) => `${columns === undefined ? line : fit(line, columns)}\n`).join("");
}

/** Those that have something to say, their labels below each other. */
function labelled({ colour }: Session, rows: readonly (readonly [string, string])[]): string[] {
  return rows
    .filter(([, text]) => text !== "")
    .map(([label, text]) => {
      return `  ${paint(colour, "2", label.padEnd(LABEL_WIDTH))}  ${escapeText(text)}`;
    });
}

function section(title: string, lines: readonly string[]): string[] {
  const indent = " ".repeat(INDENT);
  return lines.length === 0 ? [] : [`  ${title}`, ...lines.map((line) => indent + line)];
}

/** An argument as a person would type it. */
function shown(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : JSON.stringify(argument);
}

function processes({ pid }: RuntimeInfo, resources: ResourcesInfo | undefined): string {
  if (pid === null) return "";
  if (resources === undefined) return String(pid);
  const { processes: all, threads } = resources;
  const others = all > 1 ? `, ${count(all - 1, "more process", "more processes")}` : "";
  return `${pid}${others}, ${count(threads, "thread")}`;
}

function cpu({ cpu_ms }: ResourcesInfo, sinceMs: number | undefined): string {
  const share = sinceMs === undefined || sinceMs <= 0 ? undefined : (cpu_ms / sinceMs) * 100;
  const mean = share === undefined ? "" : `, ${share.toFixed(1)} % on average`;
  return `${formatDuration(cpu_ms)}${mean}`;
}

function memory({ resident_bytes, open_files }: ResourcesInfo): string {
  const files = open_files === null ? "" : `, ${count(open_files, "open file")}`;
  return `${formatBytes(resident_bytes)}${files}`;
}

function connection({ connected, dialect, messages }: RuntimeInfo): string {
  const how = connected ? (dialect ?? "yes") : "no";
  const { received = 0, unlinked = 0, refused = 0 } = messages ?? {};
  if (received === 0) return how;
  const lost = [
    ...(unlinked > 0 ? [`${unlinked} without a link`] : []),
    ...(refused > 0 ? [`${refused} refused`] : []),
  ];
  const rest = lost.length === 0 ? "" : ` (${lost.join(", ")})`;
  return `${how}, ${count(received, "message")} received${rest}`;
}

/** The settings that differ from the default, in the words of `runtime add`. */
function settings(runtime: RuntimeInfo): string {
  const { restartDelayMs, stopSignal, stopGraceMs } = DEFAULT_SETTINGS;
  const differing: (string | false | null)[] = [
    runtime.privileged && "privileged",
    (runtime.restart ?? "no") !== "no" && `restart ${runtime.restart}`,
    (runtime.restart_delay_ms ?? restartDelayMs) !== restartDelayMs &&
      `restart-delay ${formatDuration(runtime.restart_delay_ms)}`,
    (runtime.stop_signal ?? stopSignal) !== stopSignal && `stop-signal ${runtime.stop_signal}`,
    (runtime.stop_grace_ms ?? stopGraceMs) !== stopGraceMs &&
      `stop-grace ${formatDuration(runtime.stop_grace_ms)}`,
    runtime.priority && `priority ${runtime.priority}`,
    runtime.cwd && `cwd ${runtime.cwd}`,
    runtime.env?.length > 0 && `env ${runtime.env.join(" ")}`,
    runtime.owner && `of manifest ${runtime.owner}`,
    runtime.hash && "uploaded",
  ];
  return differing.filter(Boolean).join(", ");
}

function linkLines(
  link: Flow,
  id: InstanceId,
  name: NameOf,
  nowMs: number,
  columns: number | undefined,
): string[] {
  const { routed, delivered, queued, dropped, peer, per_second: rate } = link;
  const [arrow, other] =
    link.from === id
      ? ["→", targetName(link.to, name)]
      : ["←", link.from === null ? "any" : name(link.from)];
  const losses = Object.entries(dropped).filter(([, number]) => number > 0);
  const lost = losses.map(
    ([reason, number]) => `${number} dropped as ${reason.replaceAll("_", " ")}`,
  );
  const accounts = [
    `${routed} routed${rate > 0 ? ` (${rate}/s)` : ""}`,
    `${delivered} ${peer === undefined ? "delivered" : "sent"}`,
    ...lost,
  ];
  if (queued > 0) accounts.push(`${queued} queued`);
  const line = (type: string, end: string): string =>
    escapeText(`${type} ${arrow} ${end}: ${accounts.join(", ")}`);
  const whole = line(link.type_name, other);
  const isShort = columns === undefined || Bun.stringWidth(whole) + INDENT <= columns;
  const short = (text: string): string => shortName(text, columns && columns / 2);
  const first = isShort ? whole : line(short(link.type_name), short(other));
  return peer === undefined ? [first] : [first, `  ${peerWords(peer, nowMs)}`];
}

function eventLines(
  { colour, terminal }: Session,
  events: readonly EventInfo[],
  name: NameOf,
): string[] {
  return tellShort(events, name, terminal.columns).map(({ time, text, isBad }) => {
    const moment = paint(colour, "2", formatMoment(time));
    return `${moment}  ${paint(colour && isBad, "31", escapeText(text))}`;
  });
}

function outputLines({ colour, terminal }: Session, lines: readonly LineInfo[]): string[] {
  return lines.map(({ time, line }) => {
    const shown = shorten(line, MAX_SHOWN_LINE);
    const text = terminal.outputIsScreen ? tamed(shown, colour) : shown;
    return `${paint(colour, "2", formatMoment(time))}  ${text}`;
  });
}

// `top`: what each instance takes and how many messages go through it, again and again.

import type { Info, ResourcesInfo } from "../protocol/info.ts";
import { isObject } from "../json.ts";
import { parseDuration } from "../settings.ts";
import type { FullScreen } from "./fullscreen.ts";
import { type Chosen, everyInstance, type Session } from "./session.ts";
import { formatTable } from "./table.ts";
import { count, formatBytes, formatDuration, stateStyle, stateWords } from "./words.ts";
import type { SortColumn } from "./values.ts";

/** Between two looks; rates are those of this time. */
const INTERVAL_MS = 1_000;
const MIN_INTERVAL_MS = 100;

/** What was seen at one moment. */
export interface Sample {
  readonly timeMs: number;
  readonly info: Info;
  readonly resources: Readonly<Record<string, ResourcesInfo>>;
}

/** One instance over the time between two samples. Rates are per second. */
export interface Load {
  readonly instance: Chosen;
  /** Share of one processor; null if it does not run. */
  readonly cpuPercent: number | null;
  readonly residentBytes: number | null;
  /** Messages that were delivered to it, and that it sent. */
  readonly inPerSecond: number;
  readonly outPerSecond: number;
  /** Messages that wait for it, and that were dropped on their way to it, ever. */
  readonly queued: number;
  readonly dropped: number;
}

const KEYS: Readonly<Record<string, SortColumn>> = {
  n: "name",
  c: "cpu",
  m: "memory",
  i: "in",
  o: "out",
  d: "dropped",
  r: "restarts",
};

export async function top(session: Session): Promise<void> {
  const { terminal, values, isJson } = session;
  const intervalMs = Math.max(
    MIN_INTERVAL_MS,
    parseDuration(values.get("--every") ?? "") ?? INTERVAL_MS,
  );
  let sort = (values.get("--sort") as SortColumn | undefined) ?? "name";
  let before = await look(session);
  if (isJson || !terminal.outputIsScreen) {
    await Bun.sleep(intervalMs);
    const loads = sorted(measure(before, await look(session)), sort);
    await session.answer({ instances: loads.map(loadDocument) }, () => {
      return table(loads, terminal.now(), false, undefined);
    });
    return;
  }
  let loads = measure(before, before);
  let wake = Promise.withResolvers<void>();
  let isOver = false;
  const onKey = (key: string): void => {
    if (key === "q") isOver = true;
    sort = KEYS[key] ?? sort;
    wake.resolve();
  };
  const screen = await terminal.fullScreen(onKey, () => wake.resolve());
  try {
    let nextMs = terminal.now() + intervalMs;
    while (!isOver) {
      draw(session, screen, sorted(loads, sort), sort);
      const isDue = Bun.sleep(Math.max(0, nextMs - terminal.now()));
      await Promise.race([isDue, wake.promise]);
      wake = Promise.withResolvers<void>();
      if (terminal.now() < nextMs) continue;
      const after = await look(session);
      loads = measure(before, after);
      before = after;
      nextMs = terminal.now() + intervalMs;
    }
  } finally {
    screen.leave();
  }
}

async function look(session: Session): Promise<Sample> {
  const [info, resources] = await Promise.all([
    session.info(),
    session.request({ kind: "Resources", ids: undefined }),
  ]);
  return {
    timeMs: session.terminal.now(),
    info,
    resources: isObject(resources) ? (resources as Record<string, ResourcesInfo>) : {},
  };
}

/** What has changed between two samples; one that was started again in between begins anew. */
export function measure(before: Sample, after: Sample): Load[] {
  const seconds = Math.max(1, after.timeMs - before.timeMs) / 1_000;
  const rate = (from: number | undefined, to: number): number =>
    from === undefined ? 0 : Math.max(0, to - from) / seconds;
  return everyInstance(after.info).map((instance): Load => {
    const { id, runtime } = instance;
    const former = before.info.runtimes[id];
    const used = after.resources[id];
    const usedBefore = former?.pid === runtime.pid ? before.resources[id] : undefined;
    const into = flow(after.info, id);
    return {
      instance,
      cpuPercent: used === undefined ? null : rate(usedBefore?.cpu_ms, used.cpu_ms) / 10,
      residentBytes: used?.resident_bytes ?? null,
      inPerSecond: rate(flow(before.info, id).delivered, into.delivered),
      outPerSecond: rate(former?.messages.received, runtime.messages.received),
      queued: into.queued,
      dropped: into.dropped,
    };
  });
}

/** The accounts of all links to an instance. */
function flow({ routes }: Info, id: string): Record<"delivered" | "queued" | "dropped", number> {
  const sum = { delivered: 0, queued: 0, dropped: 0 };
  for (const { to, delivered, queued, dropped } of routes) {
    if (to !== id) continue;
    sum.delivered += delivered;
    sum.queued += queued;
    for (const lost of Object.values(dropped)) sum.dropped += lost;
  }
  return sum;
}

/** Names in their order, everything else with the most first. */
export function sorted(loads: readonly Load[], column: SortColumn): Load[] {
  const value: Readonly<Record<SortColumn, (load: Load) => number>> = {
    name: () => 0, // that is how they come
    cpu: ({ cpuPercent }) => cpuPercent ?? -1,
    memory: ({ residentBytes }) => residentBytes ?? -1,
    in: ({ inPerSecond }) => inPerSecond,
    out: ({ outPerSecond }) => outPerSecond,
    dropped: ({ dropped }) => dropped,
    restarts: ({ instance }) => instance.runtime.restarts,
  };
  return loads.toSorted((a, b) => value[column](b) - value[column](a));
}

const HEADER = [
  ...["NAME", "STATE", "CPU", "MEMORY", "IN/S", "OUT/S", "QUEUED", "DROPPED", "RESTARTS"],
  "UPTIME",
];

const SPARE = ["RESTARTS", "UPTIME", "DROPPED", "QUEUED"].map((name) => HEADER.indexOf(name));

function table(
  loads: readonly Load[],
  nowMs: number,
  colour: boolean,
  columns: number | undefined,
): string {
  const rows = loads.map((load) => {
    const { runtime, name } = load.instance;
    return [
      name,
      stateWords(runtime, nowMs),
      load.cpuPercent === null ? "" : `${load.cpuPercent.toFixed(1)} %`,
      load.residentBytes === null ? "" : formatBytes(load.residentBytes),
      String(Math.round(load.inPerSecond)),
      String(Math.round(load.outPerSecond)),
      String(load.queued),
      String(load.dropped),
      String(runtime.restarts),
      typeof runtime.started === "number" ? formatDuration(nowMs - runtime.started) : "",
    ];
  });
  const style = (row: number, column: number): string =>
    column === 1 ? stateStyle((loads[row] as Load).instance.runtime) : "";
  return formatTable(HEADER, rows, { colour, columns, spare: SPARE, names: [0], style });
}

function draw(
  { terminal, colour }: Session,
  screen: FullScreen,
  loads: readonly Load[],
  sort: SortColumn,
): void {
  const running = loads.filter(({ instance }) => instance.runtime.state === "running").length;
  const head = `${count(loads.length, "instance")}, ${running} running, by ${sort}`;
  const keys = `q ends; by ${Object.entries(KEYS)
    .map(([key, column]) => `${key} ${column}`)
    .join(", ")}`;
  const { columns, rows } = screen;
  const body = table(loads, terminal.now(), colour, columns).trimEnd().split("\n");
  const shown = body.slice(0, Math.max(1, rows - 2));
  screen.draw([head.slice(0, columns), ...shown, keys.slice(0, columns)]);
}

/** A load as programs read it. */
function loadDocument({ instance, ...load }: Load): Record<string, unknown> {
  const { id, name, runtime } = instance;
  return {
    id,
    name,
    state: runtime.state,
    cpu_percent: load.cpuPercent,
    resident_bytes: load.residentBytes,
    in_per_second: load.inPerSecond,
    out_per_second: load.outPerSecond,
    queued: load.queued,
    dropped: load.dropped,
    restarts: runtime.restarts,
  };
}

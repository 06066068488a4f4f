// What a daemon holds, for tests: random, and as a model that carries out the steps of a plan and
// refuses what a daemon would refuse.

import { createHash } from "node:crypto";

import { MAX_STOP_GRACE_MS } from "../../src/limits.ts";
import { DEFAULT_LINK_SETTINGS, type LinkSettings, ON_FULL } from "../../src/model.ts";
import type { Step } from "../../src/manifest/plan.ts";
import type { Present, PresentInstance, PresentLink } from "../../src/manifest/present.ts";
import {
  formatLink,
  type LinkEnd,
  linkKey,
  type Manifest,
  type NamedLink,
  type WantedInstance,
} from "../../src/manifest/wanted.ts";
import {
  DEFAULT_PROGRAM,
  type ProgramSettings,
  RESTART_POLICIES,
  STOP_SIGNALS,
} from "../../src/settings.ts";
import type { Random } from "./random.ts";

/** Stands for the SHA-256 of a program. A daemon's copy has the hash of what it is a copy of. */
export function hashOf(path: string): string {
  const copied = /^\/copies\/([0-9a-f]{64})$/.exec(path)?.[1];
  return copied ?? createHash("sha256").update(path).digest("hex");
}

/** An instance as somebody adds it who says nothing but its name. */
export function presentInstance(
  name: string,
  more: Partial<Omit<PresentInstance, "settings">> & { settings?: Partial<ProgramSettings> } = {},
): PresentInstance {
  return {
    id: `id-of-${name}`,
    path: `/bin/${name}`,
    hash: null,
    state: "running",
    owner: "rig",
    ...more,
    settings: { ...DEFAULT_PROGRAM, name, ...more.settings },
  };
}

export function presentLink(
  from: string | undefined,
  typeName: string,
  to: string,
  owner: string | null = "rig",
  settings: Partial<LinkSettings> = {},
): PresentLink {
  const end: LinkEnd = { kind: "instance", name: to };
  return { from, typeName, to: end, owner, settings: { ...DEFAULT_LINK_SETTINGS, ...settings } };
}

/** A daemon that holds instances and links, and starts nothing. */
export class ModelDaemon {
  readonly #owner: string;
  readonly #instances: Map<string, PresentInstance>;
  readonly #links: Map<string, PresentLink>;

  constructor(owner: string, present: Present) {
    this.#owner = owner;
    this.#instances = new Map(present.instances.map((there) => [there.settings.name, there]));
    this.#links = new Map(present.links.map((link) => [linkKey(link), link]));
  }

  get present(): Present {
    return { instances: [...this.#instances.values()], links: [...this.#links.values()] };
  }

  /** @throws what a daemon would refuse */
  apply(step: Step): void {
    switch (step.kind) {
      case "add": {
        const { name } = step.wanted.settings;
        refuseIf(this.#instances.has(name), `${name} is there already`);
        const id = `new-${name}`;
        this.#instances.set(name, this.#instanceOf(step.wanted, id, "stopped"));
        return;
      }
      case "change": {
        const { name } = step.wanted.settings;
        const { id, state } = this.#get(name);
        refuseIf(id !== step.id, `${step.id} is not ${name}`);
        this.#instances.set(name, this.#instanceOf(step.wanted, id, state));
        return;
      }
      case "remove": {
        refuseIf(this.#get(step.name, step.id).state === "running", `${step.name} is running`);
        this.#instances.delete(step.name);
        const ends = this.present.links.filter((link) => touches(link, step.name));
        refuseIf(ends.length > 0, `${step.name} has links of which nothing was said`);
        return;
      }
      case "stop":
        refuseIf(this.#get(step.name, step.id).state !== "running", `${step.name} is not running`);
        this.#setState(step.name, "stopped");
        return;
      case "start":
        refuseIf(this.#get(step.name).state === "running", `${step.name} is running`);
        this.#setState(step.name, "running");
        return;
      case "link":
        if (step.link.from !== undefined) this.#get(step.link.from);
        if (step.link.to.kind === "instance") this.#get(step.link.to.name);
        this.#links.set(linkKey(step.link), { ...step.link, owner: this.#owner });
        return;
      case "unlink":
        refuseIf(!this.#links.delete(linkKey(step.link)), `no link ${formatLink(step.link)}`);
        return;
    }
  }

  #get(name: string, id?: string): PresentInstance {
    const instance = this.#instances.get(name);
    if (instance === undefined) throw new Error(`${name} is not there`);
    refuseIf(id !== undefined && id !== instance.id, `${id} is not ${name}`);
    return instance;
  }

  #setState(name: string, state: PresentInstance["state"]): void {
    this.#instances.set(name, { ...this.#get(name), state });
  }

  #instanceOf(
    { settings, path, copy }: WantedInstance,
    id: string,
    state: PresentInstance["state"],
  ): PresentInstance {
    const hash = copy ? hashOf(path) : null;
    const kept = hash === null ? path : `/copies/${hash}`;
    return { id, settings, path: kept, hash, state, owner: this.#owner };
  }
}

function touches({ from, to }: NamedLink, name: string): boolean {
  return from === name || (to.kind === "instance" && to.name === name);
}

function refuseIf(condition: boolean, reason: string): void {
  if (condition) throw new Error(reason);
}

const NAMES = ["ping", "pong", "a.b", "a-b", "A", "0", "true", "x".repeat(64), "constructor", "e"];
const TEXTS = [
  "",
  "x",
  " ",
  "\n",
  "\r\n",
  "\t",
  '"',
  "'",
  '"""',
  "'''",
  "\\",
  "\\n",
  "$",
  "$$",
  "${A}",
  "é",
  "😀",
  "\u007f",
  "\u0001",
  "#",
  "=",
  "]",
  "}",
  "\u2028",
  "\uFEFF",
];
const OWNERS = ["rig", "rig", "rig", "/else/a.toml", null];

function randomText(random: Random): string {
  return random.text(random.size(0, 8), TEXTS);
}

function randomSettings(random: Random, name: string): ProgramSettings {
  const maybe = <T>(value: T, byDefault: T): T => (random.chance(0.3) ? value : byDefault);
  const names = ["A", "B_1", "__proto__", "c.d", "PATH"].filter(() => random.chance(0.3));
  return {
    name,
    args: maybe(
      Array.from({ length: random.size(0, 4) }, () => randomText(random)),
      [],
    ),
    env: Object.fromEntries(names.map((key) => [key, randomText(random)])),
    cwd: maybe(`/../${randomText(random)}x/`, null),
    restart: random.pick(RESTART_POLICIES),
    restartDelayMs: maybe(random.pick([0, 1, 1_500, 30_000]), DEFAULT_PROGRAM.restartDelayMs),
    stopSignal: maybe(random.pick(STOP_SIGNALS), DEFAULT_PROGRAM.stopSignal),
    stopGraceMs: maybe(
      random.pick([0, 60_000, 90_000, random.int(0, MAX_STOP_GRACE_MS)]),
      DEFAULT_PROGRAM.stopGraceMs,
    ),
    priority: maybe(random.pick(["high", "normal", "low"] as const), null),
    privileged: random.chance(0.2),
  };
}

function randomLink(random: Random, names: readonly string[]): NamedLink {
  const typeName = `demo::${random.pick(["T", "U", 'odd "type"\n', "é"])}`;
  const isRemote = names.length === 0 || random.chance(0.3);
  const to: LinkEnd = isRemote
    ? { kind: "remote", host: random.pick(["127.0.0.1", "::1"]), port: random.int(1, 3) }
    : { kind: "instance", name: random.pick(names) };
  const from = names.length === 0 || random.chance(0.3) ? undefined : random.pick(names);
  const bounds = [
    DEFAULT_LINK_SETTINGS,
    { maxBytes: random.pick([1, 1024, 1025, 2 ** 28]), maxMessages: Number.POSITIVE_INFINITY },
    { maxBytes: 2 ** 28, maxMessages: random.int(1, 1_000) },
  ];
  const settings = {
    ...DEFAULT_LINK_SETTINGS,
    ...random.pick(bounds),
    onFull: random.pick(ON_FULL),
  };
  return { from, typeName, to, settings };
}

function randomNames(random: Random): string[] {
  return NAMES.filter(() => random.chance(0.5));
}

function randomLinks(random: Random, names: readonly string[]): NamedLink[] {
  const links = Array.from({ length: random.size(0, 12) }, () => randomLink(random, names));
  return [...new Map(links.map((link) => [linkKey(link), link])).values()];
}

/** What any daemon may hold, of several owners. */
export function randomPresent(random: Random): Present {
  const names = randomNames(random);
  const instances = names.map((name): PresentInstance => {
    const path = `/bin/./${randomText(random)}x`;
    const hash = random.chance(0.3) ? hashOf(path) : null;
    return {
      id: `id-of-${name}`,
      settings: randomSettings(random, name),
      path: hash === null ? path : `/copies/${hash}`,
      hash,
      state: random.pick(["running", "finished", "stopped"]),
      owner: random.pick(OWNERS),
    };
  });
  const links = randomLinks(random, names).map((link) => ({ ...link, owner: random.pick(OWNERS) }));
  return { instances, links };
}

/** A manifest that may well ask for what is there, with changes. */
export function randomManifest(random: Random, present: Present): Manifest {
  const names = randomNames(random);
  const instances = names.map((name, index): WantedInstance => {
    const there = present.instances.find(({ settings }) => settings.name === name);
    const isKept = there !== undefined && random.chance(0.7);
    const settings = isKept ? there.settings : randomSettings(random, name);
    return {
      settings: random.chance(0.2) ? { ...settings, restart: "always" } : settings,
      path: isKept && random.chance(0.8) ? there.path : "/bin/other",
      copy: isKept ? there.hash !== null : random.chance(0.3),
      start: random.chance(0.7),
      after: names.slice(0, index).filter(() => random.chance(0.2)),
      ready: "running",
    };
  });
  const kept = present.links.filter(
    ({ from, to }) =>
      (from === undefined || names.includes(from)) &&
      (to.kind === "remote" || names.includes(to.name)),
  );
  const links = [...kept.filter(() => random.chance(0.7)), ...randomLinks(random, names)];
  const unique = new Map(
    links.map(({ from, typeName, to, settings }) => {
      const link = { from, typeName, to, settings };
      return [linkKey(link), link];
    }),
  );
  return { owner: "rig", instances: shuffled(random, instances), links: [...unique.values()] };
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const left = [...items];
  return items.map(() => left.splice(random.int(0, left.length - 1), 1)[0] as T);
}

// Changes of a state, seeded, and a model of what they lead to.
//
// Batch after batch follows from the seed alone, so that two processes agree about what a state
// must hold after each of them.

import { DEFAULT_LINK_SETTINGS, formatTarget, type LinkKey } from "../../src/model.ts";
import type { StoredInstance, StoredLink, StoredStatus } from "../../src/store/records.ts";
import { DEFAULT_SETTINGS } from "../../src/settings.ts";
import type { Registered, Store } from "../../src/store.ts";
import { Random } from "./random.ts";

/** One call of a store that changes something. */
type Change = (store: Store) => void;

const TEXTS = ["a", "Z", "0", "-", " ", "'", '"', "\\", "\n", "ä", "€", "😀", "%", ";", "--"];

export const IDLE: StoredStatus = {
  wanted: false,
  failed: null,
  priority: null,
  run: null,
  last: null,
};

/** An instance with nothing special about it. */
export function plainInstance(id: string, name: string = `name-${id.slice(-4)}`): StoredInstance {
  return { id, path: "/bin/true", binary: null, settings: { ...DEFAULT_SETTINGS, name }, ...IDLE };
}

/** A link with nothing special about it. */
export function plainLink(from: string | undefined, typeName: string, to: string): StoredLink {
  return {
    key: { from, typeName, to: { kind: "instance", id: to } },
    settings: DEFAULT_LINK_SETTINGS,
  };
}

/** An id that follows from a number. */
export function idOf(number: number): string {
  return `0195fc7b-33e6-70e3-bee1-${number.toString(16).padStart(12, "0")}`;
}

/** What is registered after some batches of changes. */
export class Registry {
  batch = 0;
  readonly #random: Random;
  #instances: StoredInstance[] = [];
  #links: StoredLink[] = [];
  #added = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  get registered(): Registered {
    return { instances: [...this.#instances], links: [...this.#links] };
  }

  /** The changes of the next batch, which this model takes at once. The fact `batch` tells which it was. */
  next(): Change[] {
    this.batch++;
    const batch = String(this.batch);
    const changes = Array.from({ length: this.#random.size(1, 12) }, () => this.#change());
    changes.push((store) => store.set("batch", batch));
    const time = 1_700_000_000_000 + this.batch;
    const event = { time, kind: "changed", id: null, name: batch, detail: { batch: this.batch } };
    changes.push((store) => void store.addEvent(event));
    return changes;
  }

  #change(): Change {
    const random = this.#random;
    const instance = this.#instances.length === 0 ? undefined : random.pick(this.#instances);
    if (instance === undefined || random.chance(0.3)) return this.#put(this.#newInstance());
    const { id } = instance;
    if (random.chance(0.1)) return this.#put({ ...this.#newInstance(), id });
    if (random.chance(0.3)) {
      const status = this.#status();
      this.#replace({ ...instance, ...status });
      return (store) => store.putStatus(id, status);
    }
    if (random.chance(0.2)) {
      this.#instances = this.#instances.filter((other) => other.id !== id);
      this.#links = this.#links.filter(({ key }) => key.from !== id && formatTarget(key.to) !== id);
      return (store) => store.removeInstance(id);
    }
    if (random.chance(0.02)) {
      this.#instances = [];
      this.#links = [];
      return (store) => store.clear();
    }
    return this.#changeLink(id);
  }

  #changeLink(id: string): Change {
    const random = this.#random;
    const link = this.#links.length === 0 ? undefined : random.pick(this.#links);
    if (link !== undefined && random.chance(0.3)) {
      this.#links = this.#links.filter(({ key }) => !isSame(key, link.key));
      return (store) => store.removeLink(link.key);
    }
    const key: LinkKey = {
      from: random.chance(0.3) ? undefined : random.pick(this.#instances).id,
      typeName: random.text(random.int(1, 2), TEXTS),
      to: random.chance(0.7)
        ? { kind: "instance", id }
        : { kind: "remote", host: random.pick(["127.0.0.1", "::1"]), port: random.int(1, 9) },
    };
    const settings = {
      maxBytes: random.int(1, 2 ** 20),
      maxMessages: random.chance(0.5) ? Number.POSITIVE_INFINITY : random.int(1, 100),
      onFull: random.pick(["drop-oldest", "drop-newest", "block"] as const),
      owner: random.chance(0.5) ? null : random.text(3, TEXTS),
    };
    const at = this.#links.findIndex((other) => isSame(other.key, key));
    if (at < 0) this.#links.push({ key, settings });
    else this.#links[at] = { key, settings };
    return (store) => store.putLink({ key, settings });
  }

  #put(instance: StoredInstance): Change {
    if (!this.#replace(instance)) this.#instances.push(instance);
    return (store) => store.putInstance(instance);
  }

  #replace(instance: StoredInstance): boolean {
    const at = this.#instances.findIndex(({ id }) => id === instance.id);
    if (at >= 0) this.#instances[at] = instance;
    return at >= 0;
  }

  #newInstance(): StoredInstance {
    const random = this.#random;
    const number = ++this.#added;
    return {
      id: idOf(number),
      path: `/${random.text(random.size(1, 60), TEXTS)}`,
      binary: random.chance(0.5) ? null : random.bytes(32).toString("hex"),
      settings: {
        name: `name-${number}`,
        args: Array.from({ length: random.int(0, 3) }, () => random.text(4, TEXTS)),
        env: random.chance(0.5) ? {} : { KEY: random.text(random.size(1, 3_000), TEXTS) },
        cwd: random.pick([null, "/tmp"]),
        restart: random.pick(["no", "on-failure", "always"] as const),
        restartDelayMs: random.int(0, 1_000),
        stopSignal: random.pick(["SIGINT", "SIGKILL"] as const),
        stopGraceMs: random.int(0, 1_000),
        owner: random.pick([null, "/etc/orchestrator.toml"]),
        priority: random.pick([null, "low"] as const),
        privileged: random.chance(0.5),
      },
      ...this.#status(),
    };
  }

  #status(): StoredStatus {
    const random = this.#random;
    const run = { pid: random.int(1, 99_999), startTicks: random.next(), bootId: "b", mark: "m\0" };
    const exit = random.chance(0.5)
      ? { code: random.int(0, 255), signal: undefined }
      : { code: undefined, signal: "SIGINT" };
    return {
      wanted: random.chance(0.5),
      failed: random.chance(0.8) ? null : random.text(10, [...TEXTS, "\0"]),
      priority: random.pick([null, "high", "normal", "low"] as const),
      run: random.chance(0.5) ? null : run,
      last: random.chance(0.5) ? null : { exit, wasStopped: random.chance(0.5), restarts: 3 },
    };
  }
}

function isSame(a: LinkKey, b: LinkKey): boolean {
  return (
    a.from === b.from && a.typeName === b.typeName && formatTarget(a.to) === formatTarget(b.to)
  );
}

// A plan at work: what ends, what is stored, what starts, in this order; each step with its outcome.
//
// What depends on nothing else goes side by side. A step that fails ends what builds on it, and a
// failed change of what is stored ends everything: nothing new is started then.

import type { ControlClient } from "../../client.ts";
import { messageChain, OrchestratorError } from "../../errors.ts";
import type { Step } from "../../manifest/plan.ts";
import type { Present } from "../../manifest/present.ts";
import {
  formatLink,
  type LinkEnd,
  type Manifest,
  type NamedLink,
  type WantedInstance,
} from "../../manifest/wanted.ts";
import { type InstanceId, type LinkKey, newInstanceId } from "../../model.ts";
import type { Info, RuntimeInfo } from "../../protocol/info.ts";
import { parseDuration } from "../../settings.ts";
import type { Board } from "../board.ts";
import { Deadline } from "../deadline.ts";
import { progressOf } from "../progress.ts";
import { Unmet } from "../print.ts";
import type { Chosen, Session } from "../session.ts";
import { AT_ONCE, START_TIMEOUT_MS, startOne, stopOne, type Work } from "../steer.ts";
import { Watch } from "../watch.ts";
import { exitWords } from "../words.ts";
import { awaitReady, readinessWords } from "./ready.ts";

/** What became of a step; `open`: it was not tried, or is still being tried. */
export interface Outcome {
  readonly step: Step;
  state: "open" | "done" | "failed";
  error: unknown;
}

/** The name of what a step is about. */
export function stepName(step: Step): string {
  switch (step.kind) {
    case "unlink":
    case "link":
      return formatLink(step.link);
    case "add":
    case "change":
      return step.wanted.settings.name;
    default:
      return step.name;
  }
}

type StepOf<K extends Step["kind"]> = Extract<Step, { kind: K }>;

export class Application {
  /** Of every step of the plan, in its order. */
  readonly outcomes: readonly Outcome[];
  readonly #session: Session;
  readonly #manifest: Manifest;
  readonly #board: Board | undefined;
  readonly #ids: Map<string, InstanceId>;
  readonly #free: ControlClient[] = [];
  #clients = 0;
  readonly #queue: (() => void)[] = [];

  /** `board` shows the instances that end and start; without it, their events are told as they come. */
  constructor(
    session: Session,
    manifest: Manifest,
    steps: readonly Step[],
    present: Present,
    board: Board | undefined,
  ) {
    this.outcomes = steps.map((step) => ({ step, state: "open", error: undefined }));
    this.#session = session;
    this.#manifest = manifest;
    this.#board = board;
    this.#ids = new Map(present.instances.map(({ id, settings }) => [settings.name, id]));
  }

  /** Does all steps that can be done; what failed is in the outcomes. */
  async run(): Promise<void> {
    await this.#stopAll();
    for (const outcome of this.outcomes) {
      if (this.hasFailed) return;
      const { step } = outcome;
      if (step.kind !== "stop" && step.kind !== "start")
        await this.#try(outcome, () => this.#store(step));
    }
    if (!this.hasFailed) await this.#startAll();
  }

  get hasFailed(): boolean {
    return this.outcomes.some(({ state }) => state === "failed");
  }

  /** The id of an instance of this name, if it has one by now. */
  idOf(name: string): InstanceId | undefined {
    return this.#ids.get(name);
  }

  #of<K extends Step["kind"]>(kind: K): Map<string, { step: StepOf<K>; outcome: Outcome }> {
    const found = this.outcomes.filter(({ step }) => step.kind === kind);
    return new Map(
      found.map((outcome) => {
        const step = outcome.step as StepOf<K>;
        return [stepName(step), { step, outcome }];
      }),
    );
  }

  async #try(outcome: Outcome, act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
      outcome.state = "done";
    } catch (error) {
      outcome.state = "failed";
      outcome.error = error;
    }
  }

  /** Each is stopped when all that come after it are. */
  async #stopAll(): Promise<void> {
    const stops = this.#of("stop");
    if (stops.size === 0) return;
    const info = await this.#session.info();
    const watch = await this.#watch([...stops.keys()]);
    const tasks = new Map<string, Promise<void>>();
    const stop = async (name: string): Promise<void> => {
      const { step, outcome } = stops.get(name) as { step: StepOf<"stop">; outcome: Outcome };
      const later = this.#manifest.instances
        .filter(({ after }) => after.includes(name))
        .flatMap(({ settings }) => (stops.has(settings.name) ? task(settings.name) : []));
      await Promise.all(later);
      await this.#try(outcome, async () => {
        const instance = choose(info, step.id, name);
        this.#board?.set(name, "stopping", "33");
        await this.#withClient((client) => stopOne(this.#work(watch, client, true), instance));
      });
      this.#tellEnd(name, outcome, "stopped");
    };
    const task = (name: string): Promise<void> => {
      let running = tasks.get(name);
      if (running === undefined) tasks.set(name, (running = stop(name)));
      return running;
    };
    await Promise.all([...stops.keys()].map(task));
    watch.close();
  }

  /** Each is started when all that it comes after are ready. */
  async #startAll(): Promise<void> {
    const starts = this.#of("start");
    if (starts.size === 0) return;
    const info = await this.#session.info();
    const wanted = new Map(this.#manifest.instances.map((one) => [one.settings.name, one]));
    const needed = new Set([...starts.keys()].flatMap((name) => wanted.get(name)?.after ?? []));
    const watch = await this.#watch([...wanted.keys()]);
    const waits = !this.#session.values.has("--no-wait");
    const tasks = new Map<string, Promise<boolean>>();
    /** Why one that runs already is not ready. */
    const faults = new Map<string, unknown>();
    const start = async (name: string): Promise<boolean> => {
      const { after, ready, start: shallRun } = wanted.get(name) as WantedInstance;
      const outcome = starts.get(name)?.outcome;
      if (outcome === undefined && (!shallRun || !needed.has(name))) return true;
      const before = after.filter((other) => wanted.has(other));
      if (outcome !== undefined && before.length > 0)
        this.#board?.set(name, `waits for ${before.join(", ")}`, "2");
      const areReady = await Promise.all(before.map(task));
      if (areReady.includes(false)) {
        this.#board?.set(name, "not started", "31");
        return false;
      }
      const id = this.#ids.get(name) as InstanceId;
      const deadline = new Deadline(this.#timeoutMs);
      const act = async (): Promise<void> => {
        if (outcome !== undefined) {
          this.#board?.set(name, "starting", "33");
          // A start is answered at once: all of them share a connection, however many wait.
          const client = await this.#session.client();
          await startOne(this.#work(watch, client, waits), choose(info, id, name));
        }
        if (!waits && !needed.has(name)) return;
        this.#board?.set(name, `started, waiting until ${readinessWords(ready)}`, "33");
        await awaitReady(this.#session, watch, { id, name, ready }, deadline);
      };
      if (outcome === undefined) {
        // It runs already. If it is not ready, whoever comes after it is not started, and says why.
        const unready = await act().then(
          () => undefined,
          (error: unknown) => ({ error }),
        );
        if (unready !== undefined) faults.set(name, unready.error);
        return unready === undefined;
      }
      await this.#try(outcome, act);
      const runtime = (await this.#session.info()).runtimes[id];
      this.#tellEnd(name, outcome, startedWords(runtime));
      return outcome.state === "done";
    };
    const task = (name: string): Promise<boolean> => {
      let running = tasks.get(name);
      if (running === undefined) tasks.set(name, (running = start(name)));
      return running;
    };
    await Promise.all([...starts.keys()].map(task));
    for (const [name, { outcome }] of starts) {
      if (outcome.state !== "open") continue;
      for (const other of wanted.get(name)?.after ?? []) {
        if (!faults.has(other)) continue; // one that failed to start is told of itself
        const why = messageChain(faults.get(other)).join(": ");
        outcome.state = "failed";
        outcome.error = new Unmet(`Cannot start instance ${JSON.stringify(name)}: ${why}`);
      }
    }
    watch.close();
  }

  #tellEnd(name: string, { state }: Outcome, words: string): void {
    if (state === "done") this.#board?.set(name, words, "32");
    else this.#board?.set(name, "failed, see below", "31");
  }

  get #timeoutMs(): number {
    return parseDuration(this.#session.values.get("--timeout") ?? "") ?? START_TIMEOUT_MS;
  }

  #work(watch: Watch, client: ControlClient, waits: boolean): Work {
    const given = parseDuration(this.#session.values.get("--timeout") ?? "");
    const deadline = given === undefined ? undefined : new Deadline(given);
    return { session: this.#session, watch, waits, deadline, client };
  }

  #watch(names: readonly string[]): Promise<Watch> {
    const instances = names.flatMap((name) => {
      const id = this.#ids.get(name);
      return id === undefined ? [] : { id, name };
    });
    return Watch.begin(this.#session, instances, () => this.#board === undefined);
  }

  /** A connection of its own for a request that others are not to wait for; so many at once. */
  async #withClient<T>(use: (client: ControlClient) => Promise<T>): Promise<T> {
    if (this.#free.length === 0 && this.#clients >= AT_ONCE) {
      await new Promise<void>((resolve) => this.#queue.push(resolve));
    }
    let client = this.#free.pop();
    if (client === undefined) {
      this.#clients++;
      client = await this.#session.newClient();
    }
    try {
      return await use(client);
    } finally {
      this.#free.push(client);
      this.#queue.shift()?.();
    }
  }

  async #store(step: Exclude<Step, { kind: "stop" | "start" }>): Promise<void> {
    const { owner } = this.#manifest;
    switch (step.kind) {
      case "unlink":
        await this.#session.request({ kind: "Unlink", link: this.#linkKey(step.link) });
        return;
      case "link": {
        const settings = { ...step.link.settings, owner };
        await this.#session.request({ kind: "Link", link: this.#linkKey(step.link), settings });
        return;
      }
      case "remove":
        await this.#session.request({ kind: "Remove", id: step.id });
        this.#ids.delete(step.name);
        return;
      case "add": {
        const id = newInstanceId();
        await this.#put(step.wanted, id, false);
        this.#ids.set(step.wanted.settings.name, id);
        return;
      }
      case "change":
        await this.#put(step.wanted, step.id, true);
    }
  }

  /** Adds an instance, or gives one that is there what is wanted. */
  async #put(
    { settings, path, copy }: WantedInstance,
    id: InstanceId,
    isThere: boolean,
  ): Promise<void> {
    const all = { ...settings, owner: this.#manifest.owner };
    if (copy) {
      await this.#upload(id, path, all, isThere);
      return;
    }
    await this.#session.request({ kind: isThere ? "Update" : "Add", id, path, settings: all });
  }

  async #upload(
    id: InstanceId,
    path: string,
    settings: WantedInstance["settings"] & { readonly owner: string },
    isThere: boolean,
  ): Promise<void> {
    const progress = progressOf(this.#session);
    const client = await this.#session.newClient();
    await client
      .upload(id, path, settings, (sent, total) => progress.update(sent, total), isThere)
      .finally(() => {
        progress.end();
        client.close();
      });
  }

  #linkKey({ from, typeName, to }: NamedLink): LinkKey {
    return {
      from: from === undefined ? undefined : this.#known(from),
      typeName,
      to: this.#target(to),
    };
  }

  #target(end: LinkEnd): LinkKey["to"] {
    if (end.kind === "remote") return end;
    return { kind: "instance", id: this.#known(end.name) };
  }

  #known(name: string): InstanceId {
    const id = this.#ids.get(name);
    if (id !== undefined) return id;
    throw new OrchestratorError("not_found", `Cannot find instance ${JSON.stringify(name)}`);
  }
}

/** @throws `not_found` if it was removed meanwhile */
function choose({ runtimes }: Info, id: InstanceId, name: string): Chosen {
  const runtime = runtimes[id];
  if (runtime === undefined) {
    throw new OrchestratorError(
      "not_found",
      `Cannot find instance ${JSON.stringify(name)}: it was removed meanwhile`,
    );
  }
  return { id, name, runtime };
}

function startedWords(runtime: RuntimeInfo | undefined): string {
  if (runtime?.pid !== undefined && runtime.pid !== null) return `started (pid ${runtime.pid})`;
  const exit = runtime?.exit ?? null;
  return exit === null ? "started" : `done (${exitWords(exit)})`;
}

// Instances under watch: their events from now on, told on standard error, until something holds.

import type { ControlClient } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import type { EventInfo } from "../protocol/info.ts";
import { escapeText } from "../log.ts";
import type { InstanceId } from "../model.ts";
import { Deadline } from "./deadline.ts";
import type { Chosen, Session } from "./session.ts";
import { paint } from "./table.ts";
import { crashesWhole, tell } from "./telling.ts";

/** Silence after which the daemon is asked whether it lives: a hung one is told within 5 s more. */
const PROBE_MS = 2_000;

export class Watch {
  readonly #session: Session;
  readonly #client: ControlClient;
  readonly #tells: (event: EventInfo) => boolean;
  readonly #events: Map<InstanceId, EventInfo[]> = new Map();
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #lost: OrchestratorError | undefined;

  private constructor(
    session: Session,
    client: ControlClient,
    tells: (event: EventInfo) => boolean,
  ) {
    this.#tells = tells;
    this.#session = session;
    this.#client = client;
  }

  /**
   * From its return on, no event of these instances is missed. `tells` says which are told on standard
   * error, if people read that.
   */
  static async begin(
    session: Session,
    instances: readonly Pick<Chosen, "id" | "name">[],
    tells: (event: EventInfo) => boolean = () => true,
  ): Promise<Watch> {
    const client = await session.newClient();
    const watch = new Watch(session, client, tells);
    const names = new Map(instances.map(({ id, name }) => [id, name]));
    const stream = client.events({ ids: [...names.keys()], last: 0, follow: true });
    await stream.ready;
    void watch.#read(crashesWhole(stream.batches()), (id) => names.get(id) ?? id);
    return watch;
  }

  /** The events of an instance since the watch began, oldest first. */
  of(id: InstanceId): readonly EventInfo[] {
    return this.#events.get(id) ?? [];
  }

  /**
   * Resolves with the next event of any instance, or after `withinMs`. While nothing happens, the
   * daemon is asked now and then whether it lives.
   * @throws `unreachable` or `timed_out` if there will be no more
   */
  async changed(withinMs: number): Promise<void> {
    const deadline = new Deadline(withinMs);
    const { promise } = this.#changed;
    let hasChanged = false;
    void promise.then(() => (hasChanged = true));
    do {
      if (this.#lost !== undefined) throw this.#lost;
      await within(promise, Math.min(deadline.leftMs, PROBE_MS));
      if (hasChanged || deadline.leftMs === 0) break;
      await this.#session.request({ kind: "Version" }, this.#session.answerMs);
    } while (!hasChanged);
    if (this.#lost !== undefined) throw this.#lost;
  }

  close(): void {
    this.#client.close();
  }

  async #read(
    batches: AsyncIterable<readonly EventInfo[]>,
    nameOf: (id: string) => string,
  ): Promise<void> {
    let cause: unknown = new Error("the stream of events has ended");
    try {
      for await (const batch of batches) {
        for (const event of batch) {
          if (event.id !== null) this.#events.set(event.id, [...this.of(event.id), event]);
        }
        this.#tell(batch, nameOf);
        this.#wake();
      }
    } catch (error) {
      cause = error;
    }
    this.#lost = new OrchestratorError("unreachable", "Lost the orchestrator while waiting", {
      cause,
    });
    this.#wake();
  }

  #tell(batch: readonly EventInfo[], nameOf: (id: string) => string): void {
    const { reportColour, terminal } = this.#session;
    if (this.#session.isJson || this.#session.isQuiet) return;
    for (const { text, isBad } of tell(batch.filter(this.#tells), nameOf)) {
      terminal.report(`${paint(reportColour, isBad ? "31" : "2", escapeText(text))}\n`);
    }
  }

  #wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    resolve();
  }
}

/** Waits for a promise that cannot fail, but no longer than that. */
async function within(promise: Promise<void>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

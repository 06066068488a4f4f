// Which instances there are, found by id or name, with the refusals of whoever asks for others.

import { OrchestratorError } from "./errors.ts";
import type { Instance } from "./instance.ts";
import { MAX_CONTROL_CONNECTIONS, MAX_INSTANCES, RESERVED_DESCRIPTORS } from "./limits.ts";
import type { InstanceId } from "./model.ts";

/** The most descriptors that an addition or a start takes. */
const PER_START = 8;

export class Registry {
  readonly #instances: Map<InstanceId, Instance> = new Map();
  /** In the order of their ids, once somebody has asked for it. */
  #sorted: readonly Instance[] | undefined;
  /** Ids whose process is being ended because its start was undone. */
  readonly #undone: Map<InstanceId, Promise<void>> = new Map();
  /** What is being ended of instances that are gone. */
  readonly #endings: Set<Promise<unknown>> = new Set();
  /** Nothing is added or started any more. */
  isEnding = false;
  readonly #descriptorsLeft: () => number;
  /** So many additions and starts need not be looked at: there is room for all of them. */
  #certain = 0;

  /** `descriptorsLeft` tells how many file descriptors this process may still open. */
  constructor(descriptorsLeft: () => number) {
    this.#descriptorsLeft = descriptorsLeft;
  }

  add(instance: Instance): void {
    this.#instances.set(instance.id, instance);
    this.#sorted = undefined;
  }

  remove(instance: Instance): void {
    this.#instances.delete(instance.id);
    this.#sorted = undefined;
    const ended = Promise.all([instance.supervisor.swept(), this.undone(instance.id)]);
    this.#endings.add(ended);
    void ended.then(() => this.#endings.delete(ended));
  }

  /** Settles when nothing runs any more of what instances have left behind, those that are gone included. */
  swept(): Promise<unknown> {
    const sweeps = this.all().map(({ supervisor }) => supervisor.swept());
    return Promise.all([...sweeps, ...this.#endings]);
  }

  get(id: InstanceId): Instance | undefined {
    return this.#instances.get(id);
  }

  /** In the order in which they were added. */
  all(): Instance[] {
    return [...this.#instances.values()];
  }

  /** In the order of their ids. */
  sorted(): readonly Instance[] {
    this.#sorted ??= this.all().sort((a, b) => (a.id < b.id ? -1 : 1));
    return this.#sorted;
  }

  /** Names that are taken. */
  names(): ReadonlySet<string> {
    return new Set(this.all().map(({ settings }) => settings.name));
  }

  named(name: string): Instance | undefined {
    return this.all().find(({ settings }) => settings.name === name);
  }

  /** Whether it is registered still, and not another with the same id. */
  holds(instance: Instance): boolean {
    return this.#instances.get(instance.id) === instance;
  }

  /** @throws `not_found`, saying what cannot be done to it */
  find(id: InstanceId, verb: string): Instance {
    const instance = this.#instances.get(id);
    if (instance === undefined) throw unknownInstance(`Cannot ${verb} instance "${id}"`, id);
    return instance;
  }

  /** Nothing is started under this id before `ended` settles, not even if it is removed and added anew. */
  holdBack(id: InstanceId, ended: Promise<void>): void {
    this.#undone.set(id, ended);
    void ended.then(() => {
      if (this.#undone.get(id) === ended) this.#undone.delete(id);
    });
  }

  /** What a start has to wait for, if anything. */
  undone(id: InstanceId): Promise<void> | undefined {
    return this.#undone.get(id);
  }

  /** @throws `not_found`, or `wrong_state` while it or everything is being removed */
  findToStart(id: InstanceId): Instance {
    const instance = this.find(id, "start");
    const subject = `Cannot start instance "${id}"`;
    if (this.isEnding) throw ending(subject);
    this.#checkDescriptors(subject);
    if (!instance.isRemoving) return instance;
    throw new OrchestratorError("wrong_state", `${subject}: it is being removed`);
  }

  /** @throws `already_exists` or `limit_exceeded` if such an instance cannot be added */
  checkNew(id: InstanceId, name: string | undefined): void {
    const subject = `Cannot add instance "${id}"`;
    if (this.isEnding) throw ending(subject);
    if (this.#instances.has(id)) {
      throw new OrchestratorError(
        "already_exists",
        `${subject}: an instance with this id is registered already`,
      );
    }
    if (name !== undefined) this.checkName(name, subject);
    this.#checkDescriptors(subject);
    if (this.#instances.size >= MAX_INSTANCES) {
      throw new OrchestratorError(
        "limit_exceeded",
        `${subject}: ${MAX_INSTANCES} are registered, which is the limit; remove one first`,
      );
    }
  }

  /** What runs must be able to go on, and be stopped. @throws `limit_exceeded` */
  #checkDescriptors(subject: string): void {
    if (this.#certain-- > 0) return;
    const left = this.#descriptorsLeft();
    this.#certain = Math.floor((left - RESERVED_DESCRIPTORS - MAX_CONTROL_CONNECTIONS) / PER_START);
    if (left > RESERVED_DESCRIPTORS) return;
    throw new OrchestratorError(
      "limit_exceeded",
      `${subject}: only ${RESERVED_DESCRIPTORS} file descriptors are left, which are kept for what runs`,
      { hint: "start the daemon with a higher limit: ulimit -n 65536, or LimitNOFILE=65536" },
    );
  }

  /** @throws `already_exists` if another instance is called so */
  checkName(name: string, subject: string): void {
    const other = this.named(name);
    if (other === undefined) return;
    throw new OrchestratorError(
      "already_exists",
      `${subject}: the name ${JSON.stringify(name)} is that of instance ${other.id}`,
    );
  }
}

export function unknownInstance(subject: string, id: InstanceId): OrchestratorError {
  return new OrchestratorError("not_found", `${subject}: no instance with the id ${id}`);
}

function ending(subject: string): OrchestratorError {
  return new OrchestratorError("wrong_state", `${subject}: the orchestrator is stopping`);
}

// A store without a disk: what is durable, and what would be after a commit, which may fail.

import type { EventInfo } from "../../src/protocol/info.ts";
import { formatTarget, type InstanceId, type LinkKey } from "../../src/model.ts";
import type { StoredInstance, StoredLink, StoredStatus } from "../../src/store/records.ts";
import type { Store } from "../../src/store.ts";

interface Page {
  readonly instances: Map<InstanceId, StoredInstance>;
  readonly links: Map<string, StoredLink>;
}

/** What of a store the orchestrator uses. */
type Used = Pick<
  Store,
  | "putInstance"
  | "putStatus"
  | "removeInstance"
  | "putLink"
  | "removeLink"
  | "addEvent"
  | "events"
  | "isDirty"
  | "commit"
  | "sync"
>;

export class Notebook implements Used {
  /** Commits fail, as on a disk that is full. */
  isFull = false;
  isDirty = false;
  #durable: Page = { instances: new Map(), links: new Map() };
  #next: Page = copy(this.#durable);
  #seq = 0;

  /** What the next daemon finds. */
  get durable(): { instances: StoredInstance[]; links: StoredLink[] } {
    const { instances, links } = this.#durable;
    return { instances: [...instances.values()], links: [...links.values()] };
  }

  /** A daemon was killed, and the next one opens this. */
  reopen(): void {
    this.#next = copy(this.#durable);
    this.isDirty = false;
  }

  putInstance(instance: StoredInstance): void {
    this.isDirty = true;
    this.#next.instances.set(instance.id, structuredClone(instance));
  }

  putStatus(id: InstanceId, status: StoredStatus): void {
    this.isDirty = true;
    const instance = this.#next.instances.get(id);
    if (instance !== undefined) this.#next.instances.set(id, { ...instance, ...status });
  }

  removeInstance(id: InstanceId): void {
    this.isDirty = true;
    this.#next.instances.delete(id);
    for (const [name, { key }] of this.#next.links) {
      if (key.from === id || formatTarget(key.to) === id) this.#next.links.delete(name);
    }
  }

  putLink(link: StoredLink): void {
    this.isDirty = true;
    this.#next.links.set(nameOf(link.key), structuredClone(link));
  }

  removeLink(key: LinkKey): void {
    this.isDirty = true;
    this.#next.links.delete(nameOf(key));
  }

  addEvent(): number {
    this.isDirty = true;
    return ++this.#seq;
  }

  events(): EventInfo[] {
    return [];
  }

  commit(): void {
    if (!this.isDirty) return;
    this.isDirty = false;
    if (this.isFull) {
      this.#next = copy(this.#durable);
      throw new Error("the disk is full");
    }
    this.#durable = copy(this.#next);
  }

  /** What is committed here is durable at once. */
  sync(): undefined {
    return undefined;
  }
}

export function nameOf({ from, typeName, to }: LinkKey): string {
  return `${from ?? "any"} ${typeName} ${formatTarget(to)}`;
}

function copy({ instances, links }: Page): Page {
  return { instances: new Map(instances), links: new Map(links) };
}

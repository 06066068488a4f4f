// The order in which instances are started: whatever one comes after is before it.

import type { WantedInstance } from "./wanted.ts";

/** Of an instance, what its place in the order depends on. */
type Ordered = Pick<WantedInstance, "after"> & {
  readonly settings: Pick<WantedInstance["settings"], "name">;
};

/** The names in an order in which each comes after its own; where that leaves a choice, as given. */
export function startOrder(instances: readonly Ordered[]): string[] {
  const byName = new Map(instances.map((instance) => [instance.settings.name, instance]));
  const order = new Set<string>();
  const visiting = new Set<string>();
  const visit = (name: string): void => {
    const instance = byName.get(name);
    if (instance === undefined || visiting.has(name)) return;
    visiting.add(name);
    for (const before of instance.after) visit(before);
    order.add(name);
  };
  for (const { settings } of instances) visit(settings.name);
  return [...order];
}

/** Every circle that a walk along `after` finds, as names of which each comes after the next. */
export function findCircles(instances: readonly Ordered[]): string[][] {
  const byName = new Map(instances.map((instance) => [instance.settings.name, instance]));
  const circles: string[][] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (name: string): void => {
    if (way.includes(name)) circles.push(way.slice(way.indexOf(name)));
    const instance = byName.get(name);
    if (instance === undefined || done.has(name) || way.includes(name)) return;
    way.push(name);
    for (const before of instance.after) visit(before);
    way.pop();
    done.add(name);
  };
  for (const { settings } of instances) visit(settings.name);
  return circles;
}

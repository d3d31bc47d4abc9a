// The address holds all: page, run, selection, colour and every value of a what-if.  It works in a file, too.
import { useLayoutEffect, useState } from 'preact/hooks'

export interface Route { page: string; params: URLSearchParams }

export function parse(hash: string): Route {
  // What is no address of ours, the token that the studio starts with among it, opens the first page.
  if (!hash.startsWith('#/')) return { page: '', params: new URLSearchParams() }
  const [page = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  return { page, params: new URLSearchParams(query) }
}
export function address(page: string, params: URLSearchParams): string {
  const query = params.toString()
  return `#/${page}${query ? `?${query}` : ''}`
}

let current = parse(location.hash)
const listeners = new Set<() => void>()
const tell = () => {
  current = parse(location.hash)
  for (const one of listeners) one()
}
addEventListener('hashchange', tell)
addEventListener('popstate', tell)

/** Go to a page, keeping the run and what is pinned. */
export function go(page: string, changes: Record<string, string | null> = {}): void {
  const kept = new URLSearchParams()
  for (const name of ['run', 'against', 'theme']) {
    const value = current.params.get(name)
    if (value !== null) kept.set(name, value)
  }
  write(page, kept, changes, true)
}
/** Change values of this page; a step of the history only where asked for. */
export function change(changes: Record<string, string | null>, step = false): void {
  write(current.page, new URLSearchParams(current.params), changes, step)
}
function write(page: string, params: URLSearchParams, changes: Record<string, string | null>, step: boolean): void {
  for (const [name, value] of Object.entries(changes)) value === null ? params.delete(name) : params.set(name, value)
  const next = address(page, params)
  if (next === location.hash) return
  history[step ? 'pushState' : 'replaceState'](null, '', next)
  tell()
}
export function useRoute(): Route {
  const [, again] = useState(0), seen = current
  // Before the page is seen: what a reader does at once is not lost.
  useLayoutEffect(() => {
    const listener = () => again((n) => n + 1)
    listeners.add(listener)
    if (seen !== current) listener()
    return () => void listeners.delete(listener)
  }, [])
  return current
}

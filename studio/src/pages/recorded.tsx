// A timeline that is not at hand: kept by the studio until it is asked for, or not recorded yet.
import { useEffect, useRef, useState } from 'preact/hooks'
import { ask } from '../data'
import { start } from '../jobs'
import { Problems } from '../parts'
import type { Problem, Run, Timeline } from '../types'
import { told } from '../words'

const kept = new Map<string, Timeline>() // by run: fetched, or recorded by this page

/** The timeline of a run, or what the page shows in its place. */
export function useTimeline(run: Run): { timeline: Timeline | null; waits: boolean; keep: (timeline: Timeline) => void; failed: string } {
  const here = run.result.view!.timeline
  const [, again] = useState(0)
  const [failed, setFailed] = useState('')
  const waits = here === 'later' && !kept.has(run.id)
  const keep = (timeline: Timeline) => { kept.set(run.id, timeline); again((n) => n + 1) }
  useEffect(() => {
    if (!waits) return
    let gone = false
    ask(`api/runs/${encodeURIComponent(run.id)}/timeline`).then(async (answer) => {
      if (!answer.ok) throw new Error(`The studio answered ${answer.status}.`)
      const found = (await answer.json()) as Timeline
      if (!gone) keep(found)
    }).catch((error) => { if (!gone) setFailed(`The timeline could not be read: ${(error as Error).message}`) })
    return () => { gone = true }
  }, [run.id])
  return { timeline: kept.get(run.id) ?? (here === 'later' ? null : here), waits: waits && !failed, keep, failed }
}

/** Runs the job once more with each step recorded. */
export function Record({ run, keep }: { run: Run; keep: (timeline: Timeline) => void }) {
  const [running, setRunning] = useState(false)
  const [problems, setProblems] = useState<Problem[]>([])
  const stop = useRef<() => void>(() => {})
  useEffect(() => () => stop.current(), [])
  const record = () => {
    if (running) { stop.current(); setRunning(false); return }
    setProblems([]); setRunning(true)
    stop.current = start({ kind: 'timeline', job: run.result.view!.job }, (event) => {
      if (event.event === 'timeline') { if (event.timeline) keep(event.timeline); else setProblems([{ message: 'This job records no steps.' }]) }
      if (event.event === 'problem') setProblems(event.problems)
      if (['end', 'problem', 'stopped'].includes(event.event)) setRunning(false)
    })
  }
  return (
    <>
      <p><button type="button" class="act main" onClick={record}>{running ? 'Stop' : 'Record it now'}</button></p>
      <p class="soft" role="status">{running ? 'Running: the job once more, each step recorded.' : 'The job runs once more, which takes some seconds; its timeline opens here.'}</p>
      {problems.length > 0 && <Problems title="No timeline" lines={problems.map((problem) => <>{told(problem)}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
    </>
  )
}

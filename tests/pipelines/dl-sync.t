needs: farm
A job puts out a file in each of two tasks, and the same file in both.

  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-sync test
  > parameterDefinitions:
  > - {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT}
  > steps:
  > - name: one
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  >   script:
  >     actions:
  >       onRun: {command: bash, args: ["-c", "cd '{{Param.Out}}' && echo {{Task.Param.N}} | tee {{Task.Param.N}}.txt >same.txt"]}
  > END
  $ mkdir out && dl-bundle shot -p Out="$PWD/out" | dl-submit | dl-wait | jq -r 'select(.type == "job").job_id' >job
  $ sync() { dl-sync --ignore-storage-profiles --checkpoint-dir checkpoint "$@" | grep -F -e "$(cat job)" -e '"end"'; }

A dry run tells of the files, and leaves nothing behind.

  $ sync --bootstrap-lookback-minutes 60 --dry-run >told
  $ jq -r 'select(.type == "file") | .local_path | sub(".*/out/"; "")' told | sort
  1.txt
  2.txt
  same.txt
  $ ls -A out checkpoint
  checkpoint:
  
  out:

Then they are fetched, each once.

  $ sync --bootstrap-lookback-minutes 60 >told
  $ jq -r 'select(.type != "end") | [.type, .path // .download_status, .download] | join(" ")' told | sort
  file 1.txt new
  file 2.txt new
  file same.txt new
  job downloaded 
  $ cat out/1.txt out/2.txt
  1
  2
  $ jq -r '.jobs[] | select(.job.jobId == $id) | .sessionCompletedIndexes | length >= 1' --arg id "$(cat job)" checkpoint/*_checkpoint.json
  true
  $ jq -r '.jobs[$id] | [.download_status, .total_files, (.tasks | length)] | join(" ")' --arg id "$(cat job)" checkpoint/*_status.json
  downloaded 3 2

The next run has nothing to do; nor does the file come back that was taken away.

  $ rm out/1.txt; sync | jq -r .type
  end
  $ ls out
  2.txt
  same.txt

One at a time.

  $ echo $$ >checkpoint/$(basename checkpoint/*_checkpoint.json).pid
  $ sync 2>&1 >/dev/null | sed 's/[0-9]\{2,\}/N/; s/(.*//'
  dl-sync: the process N is fetching output with the same checkpoint: wait for it, or stop it 
  $ echo 999999999 >checkpoint/$(basename checkpoint/*_checkpoint.json).pid
  $ sync 2>&1 >/dev/null | sed "s/'.*'/LOCK/"
  dl-sync: warning: the lock LOCK is removed: the process 999999999, which wrote it, is gone

Troubles.

  $ dl-sync --ignore-storage-profiles --storage-profile-id sp-1 2>&1 >/dev/null
  dl-sync: --storage-profile-id and --ignore-storage-profiles exclude each other
  [64]
  $ dl-sync --checkpoint-dir checkpoint >/dev/null 2>&1
  [64]
  $ echo '{}' >checkpoint/$(basename checkpoint/*_checkpoint.json); dl-sync --ignore-storage-profiles --checkpoint-dir checkpoint >/dev/null 2>&1
  [65]

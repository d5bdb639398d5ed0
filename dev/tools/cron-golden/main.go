// cron-golden prints what Kubernetes' CronJob controller means by a schedule: a table of ticks and refusals made with
// the parser that the controller uses, github.com/robfig/cron/v3. The table is api/tests/data/cron_golden.tsv; the test
// `golden_table` of report-api compares report_api::cron with it, row by row. To make it again:
//
//	cd dev/tools/cron-golden && go run . >../../../api/tests/data/cron_golden.tsv
//
// Rows:
//
//	refused  EXPRESSION                           the parser refuses it
//	accepted EXPRESSION                           the parser takes it, also where report-api refuses it
//	ticks    EXPRESSION ZONE START TICK...        the next five ticks after START, fewer where there are no more
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

const ticksPerRow = 5

// Schedules whose ticks depend on daylight saving, tried in every zone around every change of its clock.
var daylight = []string{
	"0 * * * *", "30 * * * *", "*/30 * * * *", "*/7 * * * *", "15 */2 * * *", "0 */6 * * *", "45 1-3 * * *",
	"0 0 * * *", "30 0 * * *", "0 1 * * *", "30 1 * * *", "0 2 * * *", "15 2 * * *", "30 2 * * *", "45 2 * * *", "0 3 * * *",
	"30 2 * * 0", "30 1 * * sun", "0 0 1 * *", "15 23 * * *", "0 5 4 11 *", "0 5 3 11 *", "*/10 1,2 * * *",
	"@hourly", "@daily", "@midnight",
}

// Schedules whose ticks depend on the calendar.
var calendar = []string{
	"* * * * *", "*/15 * * * *", "5/20 * * * *", "0,30 8-17 * * 1-5", "0 9 * * mon-fri", "0 9 * * MON,Wed,fri",
	"0 0 1 * *", "0 0 31 * *", "0 0 30 2-4 *", "0 0 29 2 *", "0 12 1 1 *", "0 12 1 jan *", "0 0 1 */3 *", "0 0 1 2/5 *",
	"0 0 13 * 5", "0 0 1,15 * 3", "0 0 */2 * 1", "0 0 1 * */2", "0 0 */1 * 1", "0 0 1 * */1", "0 0 * * 0", "0 0 * * 6",
	"0 0 1-7 * mon", "0 0 * 2 1", "0 0 31 4,6,12 *", "0 0 10-20/5 * *", "59 23 31 12 *", "0 0 29 2 1", "1-5,10-50/20 4 * * *",
	"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually",
	"00 007 * * *", "*/99 * * * *", "  0  4 \t* * *  ", "0 0 1 JAN-mar tue",
}

// Schedules that only have to be told apart: taken or refused.
var syntax = []string{
	"", " ", "*", "* * * *", "* * * * * *", "0 * * * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
	"* * * 0 *", "* * * 13 *", "* * * * 7", "* * * * 8", "-1 * * * *", "5-1 * * * *", "*/0 * * * *", "1/2/3 * * * *",
	"1-2-3 * * * *", "a * * * *", "jan * * * *", "* * * foo *", "* * * * mond", "* * * * fri-mon", "* * * * 6-7", "1.5 * * * *",
	"@every 1h", "@every 90s", "@every x", "@reboot", "@Daily", "@", "TZ=UTC 0 5 * * *", "CRON_TZ=Europe/Berlin 0 5 * * *",
	"* * L * *", "* * 15W * *", "* * LW * *", "* * * * 5L", "* * * * 1#2", "0 0 ? * *", "? * * * *", "0 0 * * ?/2",
	"1,,2 * * * *", ", * * * *", "1, * * * *", "*-5 * * * *", "+5 * * * *", "*/+5 * * * *", "5- * * * *", "/5 * * * *", "H * * * *",
	"99999999999999999999 * * * *", "0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30 feb *", " @daily", "@daily ", "* * * * sunday",
	"5/90 * * * *", "* * * * *,1", "1,* * * * *",
}

// The instants at which the clocks of a zone change.
var zones = []struct {
	name    string
	changes []string
}{
	{"Etc/UTC", []string{"2026-03-29T01:00:00Z"}},
	{"Europe/Berlin", []string{"2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z"}},
	{"Europe/London", []string{"2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z"}},
	{"America/New_York", []string{"2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z"}},
	{"America/Sao_Paulo", []string{"2018-11-04T03:00:00Z", "2019-02-17T02:00:00Z"}},
	{"America/Havana", []string{"2026-03-08T05:00:00Z", "2026-11-01T05:00:00Z"}},
	{"Asia/Kolkata", []string{"2026-03-29T01:00:00Z"}},
	{"Australia/Lord_Howe", []string{"2026-10-03T15:30:00Z", "2026-04-04T15:00:00Z"}},
	{"Pacific/Apia", []string{"2020-09-26T14:00:00Z", "2021-04-03T14:00:00Z"}},
	{"Pacific/Chatham", []string{"2026-09-26T14:00:00Z", "2026-04-04T14:00:00Z"}},
}

// From how long before a change of the clock to how long after it.
var around = []time.Duration{-50 * time.Hour, -40 * time.Minute, 0, 20*time.Minute + 30*time.Second, 2 * time.Hour}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# made by `cd dev/tools/cron-golden && go run . >../../../api/tests/data/cron_golden.tsv` with github.com/robfig/cron/v3 v3.0.1; do not edit")
	for _, expression := range syntax {
		word := "accepted"
		if !accepted(expression) {
			word = "refused"
		}
		fmt.Fprintf(out, "%s\t%q\n", word, expression)
	}
	for _, zone := range zones {
		for _, change := range zone.changes {
			at, err := time.Parse(time.RFC3339, change)
			check(err)
			for _, offset := range around {
				for _, expression := range daylight {
					row(out, expression, zone.name, at.Add(offset))
				}
			}
		}
	}
	for _, expression := range calendar {
		for _, start := range []string{"2026-01-01T00:00:00Z", "2027-12-30T22:17:41Z"} {
			at, err := time.Parse(time.RFC3339, start)
			check(err)
			row(out, expression, "Etc/UTC", at)
			row(out, expression, "America/New_York", at)
		}
	}
}

// row prints the next ticks, computed as the controller does: the zone as a prefix of the schedule, then one after another.
func row(out *bufio.Writer, expression, zone string, start time.Time) {
	schedule, err := cron.ParseStandard("TZ=" + zone + " " + expression)
	check(err)
	fmt.Fprintf(out, "ticks\t%q\t%s\t%s", expression, zone, start.UTC().Format(time.RFC3339))
	at := start
	for range ticksPerRow {
		if at = schedule.Next(at); at.IsZero() {
			break
		}
		fmt.Fprintf(out, "\t%s", at.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(out)
}

// accepted says whether the parser takes an expression. For some it panics, as the API server knows too.
func accepted(expression string) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	_, err := cron.ParseStandard(expression)
	return err == nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cron-golden:", err)
		os.Exit(1)
	}
}

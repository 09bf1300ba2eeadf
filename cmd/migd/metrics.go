// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/io-mig/mig/layers/engine"
	"github.com/io-mig/mig/layers/request/identity/authority"
	"github.com/io-mig/mig/shim/arrive"
)

// metrics is what Prometheus reads.
type metrics struct {
	registry *prometheus.Registry

	active   prometheus.Gauge
	moves    *prometheus.CounterVec
	away     prometheus.Counter
	image    prometheus.Counter
	state    prometheus.Counter
	took     prometheus.Histogram
	downtime prometheus.Histogram
}

var _ arrive.Observer = (*metrics)(nil)

// newMetrics also watches the certificate in a directory, if there is one.
func newMetrics(tls string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		active:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "mig_moves_active", Help: "Moves to this host that are under way."}),
		moves:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mig_moves_total", Help: "Moves to this host that have ended, by result: arrived, refused, failed."}, []string{"result"}),
		away:     prometheus.NewCounter(prometheus.CounterOpts{Name: "mig_connections_turned_away_total", Help: "Control connections whose TLS handshake failed."}),
		image:    prometheus.NewCounter(prometheus.CounterOpts{Name: "mig_image_bytes_total", Help: "Bytes of images that were copied to this host."}),
		state:    prometheus.NewCounter(prometheus.CounterOpts{Name: "mig_state_bytes_total", Help: "Bytes of containers' state that came to this host."}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mig_move_duration_seconds", Help: "How long moves that arrived took.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 14)}),
		downtime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "mig_move_downtime_seconds", Help: "From the last of a container's state until its copy ran, of moves that arrived: the part of the time for which it was stopped that this host sees.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "mig_info", Help: "1, labelled with mig's version.", ConstLabels: prometheus.Labels{"version": engine.Version}})
	info.Set(1)
	m.registry.MustRegister(m.active, m.moves, m.away, m.image, m.state, m.took, m.downtime, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"arrived", "refused", "failed"} {
		m.moves.WithLabelValues(result) // so that a rate exists before the first
	}
	if tls != "" {
		m.registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "mig_certificate_expiry_timestamp_seconds", Help: "When this host's certificate runs out, 0 if it cannot be read."},
			func() float64 { return expiry(tls) }))
	}
	return m
}

func expiry(dir string) float64 {
	cert, err := authority.HostCertificate(dir)
	if err != nil {
		return 0
	}
	return float64(cert.NotAfter.Unix())
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) turnedAway() { m.away.Inc() }

// Began implements arrive.Observer.
func (m *metrics) Began() { m.active.Inc() }

// Copied implements arrive.Observer.
func (m *metrics) Copied(n int) { m.image.Add(float64(n)) }

// Ended implements arrive.Observer.
func (m *metrics) Ended(o arrive.Outcome) {
	m.active.Dec()
	m.state.Add(float64(o.Bytes))
	switch {
	case o.Running:
		m.moves.WithLabelValues("arrived").Inc()
		m.took.Observe(o.Took.Seconds())
		if o.Downtime > 0 {
			m.downtime.Observe(o.Downtime.Seconds())
		}
	case o.Refused:
		m.moves.WithLabelValues("refused").Inc()
	default:
		m.moves.WithLabelValues("failed").Inc()
	}
}

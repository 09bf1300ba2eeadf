// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	_ "crypto/sha256" // go-digest looks it up at run time
	"encoding/json"
	"io"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationName is what containerd's importer names the image by.
const annotationName = "io.containerd.image.name"

// archive writes an OCI image layout as a tar: one image, one layer.
type archive struct {
	tar    *tar.Writer
	failed error
}

// writeArchive writes the image to w. Layer is an uncompressed tar.
func writeArchive(w io.Writer, name string, config v1.ImageConfig, layer []byte) error {
	a := &archive{tar: tar.NewWriter(w)}
	layerAt := a.blob(v1.MediaTypeImageLayer, layer)
	configAt := a.json(v1.MediaTypeImageConfig, v1.Image{
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   config,
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerAt.Digest}},
	})
	manifest := a.json(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    configAt,
		Layers:    []v1.Descriptor{layerAt},
	})
	manifest.Annotations = map[string]string{annotationName: name}
	a.file("index.json", a.encode(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{manifest},
	}))
	a.file(v1.ImageLayoutFile, a.encode(v1.ImageLayout{Version: v1.ImageLayoutVersion}))
	if a.failed != nil {
		return a.failed
	}
	return a.tar.Close()
}

func (a *archive) json(mediaType string, value any) v1.Descriptor {
	return a.blob(mediaType, a.encode(value))
}

func (a *archive) encode(value any) []byte {
	content, err := json.Marshal(value)
	a.fail(err)
	return content
}

// blob adds content under its digest.
func (a *archive) blob(mediaType string, content []byte) v1.Descriptor {
	at := digest.FromBytes(content)
	a.file("blobs/sha256/"+at.Encoded(), content)
	return v1.Descriptor{MediaType: mediaType, Digest: at, Size: int64(len(content))}
}

func (a *archive) file(name string, content []byte) {
	a.fail(a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}))
	_, err := a.tar.Write(content)
	a.fail(err)
}

// fail keeps the first error; the tar refuses to go on after one by itself.
func (a *archive) fail(err error) {
	if a.failed == nil {
		a.failed = err
	}
}

job "bounded" {
  group "main" {
    task "main" {
      driver = "docker"

      config {
        image   = "debian:13"
        command = "sleep"
        args    = ["infinity"]
        runtime = "ctr"
      }

      resources {
        cpu    = 500
        memory = 64
      }
    }
  }
}
